-- Record a hold and take its money. `lease` is milliseconds.
local function put_hold(now, lease, request, admitted_at, amount, tokens, claims, budgets, scopes)
  call('HSET', key('hold', request), 'claims', claims, 'admitted_at_ms', admitted_at, 'amount', amount,
    'tokens', tokens, 'budgets', budgets, 'scopes', scopes)
  call('ZADD', HOLDS, now + lease, request)
  for budget in gmatch(budgets, '%S+') do call('HINCRBY', key('budget', budget), 'held', amount) end
end
