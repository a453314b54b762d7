-- Read all holds of one bucket, and the budgets that they name, in one moment; nothing changes.
--
-- ARGV: how many holds to read at most, then names of budgets to read in any case.
-- Reply: {now, {request, lease end, value...} or nil where they are too many, {budget, value...}}.
local now, leases = now_ms(''), KEYS[1] .. ':holds.2'
if redis.call('ZCARD', leases) > tonumber(ARGV[1]) then return { now, false, {} } end

local holds, found, seen = {}, {}, {}
local function read_budget(budget)
  if seen[budget] then return end
  seen[budget] = true
  found[#found + 1], found[#found + 2] = budget, redis.call('GET', key('budget.2', budget))
end

for i = 2, #ARGV do read_budget(ARGV[i]) end
local members = redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
  local value = redis.call('GET', key('request', members[i]))
  local hold = hold_in(value)
  holds[#holds + 1], holds[#holds + 2], holds[#holds + 3] = members[i], members[i + 1], hold and value or false
  for budget in string.gmatch(hold and hold.budgets or '', '%S+') do read_budget(budget) end
end
return { now, holds, found }
