-- Set a budget's ledger figure, unless Redis has the same or a newer one. Pending and held stay as they are.
--
-- ARGV: budget, ledger, version. Reply: 1, or 0 where it was not needed.
local name = key('budget', ARGV[1])
local version = call('HGET', name, 'version')
if version and tonumber(version) >= tonumber(ARGV[3]) then return 0 end
call('HSET', name, 'ledger', ARGV[2], 'version', ARGV[3])
return 1
