-- A request's value: its hold, and SETTLED for a while once it was settled. A hold is packed (admitted at, amount,
-- tokens), then its budgets, its scopes and its claims, a line each; the former are lists, separated by spaces.
local SETTLED = 'settled'
local HOLD = '>dddd'
local HOLD_BYTES = 32

-- The hold in a request's value, or nil.
local function hold_in(value)
  if not value or value == SETTLED then return nil end
  local budgets, scopes = string.match(value, '^([^\n]*)\n([^\n]*)\n', HOLD_BYTES + 1)
  local admitted_at, amount, rest, tokens = struct.unpack(HOLD, value)
  return { admitted_at = admitted_at, amount = amount, rest = rest, tokens = tokens,
    budgets = budgets, scopes = scopes }
end
