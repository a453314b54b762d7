-- End one request, once: release its hold, move its real cost to pending, append its usage event.
--
-- ARGV: request, cost (packed), tokens really used ('' = nobody knows yet), event ('' = none), its budgets, its scopes
--   as far as the caller knows them, number of budgets; names of the request, of the budgets and of the scopes. Where
--   nobody knows yet, the cost is the whole hold: it stays pending, and its tokens stay counted, until the ledger has
--   decided.
-- Reply: 1, or 0 where it was settled before.
local SETTLED_MS = 300000 -- a repeat that comes later finds nothing to take, and the ledger drops what it says
local BEFORE_NAMES = 7
local request, cost, tokens, event, budgets = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local found = redis.call('MGET', unpack(ARGV, BEFORE_NAMES + 1))
local value = found[1]
if value == SETTLED then return 0 end

local pending, pending_rest = struct.unpack(AMOUNT, cost)
local lists = budgets .. '\n' .. ARGV[6] .. '\n'
if tokens and pending + pending_rest > 0 and value
  and string.sub(value, HOLD_BYTES + 1, HOLD_BYTES + #lists) == lists
  and redis.call('HSETNX', KEYS[1] .. ':pending.2', request, cost .. budgets) == 1
then
  -- Nearly always: the hold is as its gateway says, so all that it took is read already.
  local admitted_at, held, held_rest, held_tokens = struct.unpack(HOLD, value)
  local last_budget = 1 + tonumber(ARGV[7])
  for at = 2, last_budget do
    change_budget(ARGV[BEFORE_NAMES + at], found[at], pending, pending_rest, -held, -held_rest)
  end
  for at = last_budget + 1, #found do
    change_scope(ARGV[BEFORE_NAMES + at], found[at], admitted_at, -1, 0, tokens - held_tokens)
  end
  redis.call('ZREM', KEYS[1] .. ':holds.2', request)
else
  local hold = drop_hold(request, value)
  if not hold then
    if tokens then decide(request, tokens) end -- it had expired
  elseif tokens then
    change_scopes(hold.scopes, hold.admitted_at, -1, 0, tokens - hold.tokens)
  else
    leave_undecided(request, hold)
  end
  -- The caller's budgets, not the hold's: Redis may have lost the hold. They replace what an expiry left pending.
  set_pending(request, cost, budgets)
end
if event ~= '' then redis.call('XADD', KEYS[1] .. ':usage', '*', 'event', event) end
redis.call('SET', ARGV[BEFORE_NAMES + 1], SETTLED, 'PX', SETTLED_MS)
return 1
