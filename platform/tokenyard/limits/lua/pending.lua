-- What is settled and not yet in a budget's ledger figure.

-- Integer text, negated.
local function negated(text)
  if text == '0' then return text end
  if string.byte(text) == 45 then return sub(text, 2) end
  return '-' .. text
end

-- Set what is pending on a budget for one charge.
local function set_pending(budget, charge, amount)
  local name, total = key('pending', budget), key('budget', budget)
  if amount ~= '0' and call('HSETNX', name, charge, amount) == 1 then
    call('HINCRBY', total, 'pending', amount)
    return
  end
  local before = call('HGET', name, charge)
  if not before or before == amount then return end
  call('HINCRBY', total, 'pending', negated(before))
  if amount == '0' then
    call('HDEL', name, charge)
  else
    call('HSET', name, charge, amount)
    call('HINCRBY', total, 'pending', amount)
  end
end
