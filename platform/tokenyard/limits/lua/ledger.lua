-- Bring budgets up to what SQL has committed: set `ledger`, and drop the pending amounts that it covers by now.
--
-- ARGV, for each budget: name, create (1: also where Redis has no such budget), ledger (packed; '' leaves it), version,
--   number of charge keys, and these. A budget that is created without a ledger figure is known from then on, but
--   missing for admission: so no update is lost between a look into SQL and its arrival here.
-- Reply: how many ledger figures were set. One is left where Redis has a newer version.
local PENDING = KEYS[1] .. ':pending.2'

-- Take `budget` out of the records of charges that it covers; return the sum of them.
local function covered(budget, first, last)
  if first > last then return 0, 0 end
  local billions, rest, kept, gone = 0, 0, {}, {}
  for at, record in ipairs(redis.call('HMGET', PENDING, unpack(ARGV, first, last))) do
    local names = ' ' .. string.sub(record or '', AMOUNT_BYTES + 1) .. ' '
    local start, stop = string.find(names, ' ' .. budget .. ' ', 1, true)
    if start then
      local charge, amount, amount_rest = ARGV[first + at - 1], struct.unpack(AMOUNT, record)
      billions, rest = billions + amount, rest + amount_rest
      local left = string.sub(names, 2, start) .. string.sub(names, stop + 1, -2)
      if left == '' then
        gone[#gone + 1] = charge
      else
        kept[#kept + 1], kept[#kept + 2] = charge, string.sub(record, 1, AMOUNT_BYTES) .. left
      end
    end
  end
  if #gone > 0 then redis.call('HDEL', PENDING, unpack(gone)) end
  if #kept > 0 then redis.call('HSET', PENDING, unpack(kept)) end
  return billions, rest
end

local at, changed = 1, 0
while at <= #ARGV do
  local budget, create, ledger, version = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local first, last = at + 5, at + 4 + tonumber(ARGV[at + 4])
  local billions, rest = covered(budget, first, last)
  local name = key('budget.2', budget)
  local value = redis.call('GET', name)
  if value or create == '1' then
    local figures = value and { struct.unpack(BUDGET, value) } or { 0, 0, -1, 0, 0, 0, 0 }
    if ledger ~= '' and version >= figures[3] then
      figures[1], figures[2] = struct.unpack(AMOUNT, ledger)
      figures[3], changed = version, changed + 1
    end
    change_budget(name, write_budget(name, unpack(figures, 1, 7)), -billions, -rest, 0, 0)
  end
  at = last + 1
end
return changed
