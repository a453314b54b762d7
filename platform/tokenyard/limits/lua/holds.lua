-- Read all holds of one bucket, and what its budgets say is held of them, in one moment; nothing changes.
--
-- ARGV: how many holds to read at most, then names of budgets to read in any case.
-- Reply: {now, {request, lease end, amount, budgets...} or nil where they are too many, {budget, held...}}.
local now, most = now_ms(''), tonumber(ARGV[1])
if call('ZCARD', HOLDS) > most then return { now, false, {} } end

local holds, held, seen = {}, {}, {}
local function read_held(budget)
  if seen[budget] then return end
  seen[budget] = true
  held[#held + 1] = budget
  held[#held + 1] = call('HGET', key('budget', budget), 'held') or '0'
end

for i = 2, #ARGV do read_held(ARGV[i]) end
local leases = call('ZRANGE', HOLDS, 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  local hold = call('HMGET', key('hold', leases[i]), 'amount', 'budgets')
  local budgets = hold[2] or ''
  for _, part in ipairs({ leases[i], leases[i + 1], hold[1] or '0', budgets }) do holds[#holds + 1] = part end
  for budget in gmatch(budgets, '%S+') do read_held(budget) end
end
return { now, holds, held }
