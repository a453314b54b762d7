-- Read budgets of one bucket as they stand in one moment; nothing changes.
--
-- ARGV: how many pending charges to read at most, then names.
-- Reply: for each budget {ledger, version, pending, held, number of pending charges, and charge key, amount... of
--   them}. Charges that would be too many are left out.
local room, found = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local state = call('HMGET', key('budget', ARGV[i]), 'ledger', 'version', 'pending', 'held')
  local name = key('pending', ARGV[i])
  local count = call('HLEN', name)
  local charges = {}
  if count <= room then
    room, charges = room - count, call('HGETALL', name)
  end
  found[#found + 1] = { state[1], state[2], state[3], state[4], count, charges }
end
return found
