-- End one request, once: release its hold, move its real cost to pending, append its usage event.
--
-- ARGV: now ('' = the server's clock), request, cost, tokens really used ('' = nobody knows yet), event ('' = none),
--   budgets. Where nobody knows yet, the cost is the whole hold: it stays pending, and its tokens stay counted, until
--   the ledger has decided.
-- Reply: 1, or 0 where it was settled before.
local SETTLED_MS = 300000 -- a repeat that comes later finds nothing to take, and the ledger drops what it says
local request, cost, tokens, event = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if call('EXISTS', key('settled', request)) == 1 then return 0 end
local now = now_ms(ARGV[1])
local hold = drop_hold(request)
if tokens == '' then
  if hold then leave_undecided(now, request, hold) end
elseif hold then
  change_scopes(now, hold.scopes, hold.admitted_at, -1, 0, tonumber(tokens) - hold.tokens)
else
  decide(now, request, tonumber(tokens)) -- its hold had expired
end
-- The caller's budgets, not the hold's: Redis may have lost the hold. They replace what an expiry left pending.
for budget in gmatch(ARGV[6], '%S+') do set_pending(budget, request, cost) end
if event ~= '' then call('XADD', USAGE, '*', 'event', event) end
call('SET', key('settled', request), '1', 'PX', SETTLED_MS)
return 1
