-- Give back all that a hold took, as if it had never been; nothing is charged or reported.
--
-- ARGV: now ('' = the server's clock), request. Reply: 1, or 0 where there was no hold.
local hold = drop_hold(ARGV[2])
if not hold then return 0 end
change_scopes(now_ms(ARGV[1]), hold.scopes, hold.admitted_at, -1, -1, -hold.tokens)
return 1
