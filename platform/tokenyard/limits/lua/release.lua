-- Give back all that a hold took, as if it had never been; nothing is charged or reported.
--
-- ARGV: request. Reply: 1, or 0 where there was no hold.
local hold = drop_hold(ARGV[1], redis.call('GET', key('request', ARGV[1])))
if not hold then return 0 end
change_scopes(hold.scopes, hold.admitted_at, -1, -1, -hold.tokens)
return 1
