-- Change what the scopes of one request count for it: slots, requests and tokens. `scopes` is a list of scope/limits,
-- where limits are the numbers of those that it has. A window that has forgotten the request stays as it is.
local function change_scopes(now, scopes, admitted_at, slots, requests, tokens)
  if slots == 0 and requests == 0 and tokens == 0 then return end
  local names, limits = {}, {}
  for scope, numbers in gmatch(scopes, '(%S+)/(%d+)') do
    names[#names + 1], limits[#limits + 1] = key('windows', scope), numbers
  end
  if #names == 0 then return end
  local values = call('MGET', unpack(names))
  for at, name in ipairs(names) do
    local scope, changed, numbers = read_scope(values[at]), false, limits[at]
    for each = 1, #numbers do
      local limit = string.byte(numbers, each) - 48
      local change = limit == SLOTS and slots or limit % 2 == 0 and tokens or requests
      if limit == SLOTS then
        scope[1], changed = math.max(0, scope[1] + change), true
      elseif change ~= 0 then
        local width, place = WIDTHS[limit], 3 * limit - 1
        local index, current = floor(admitted_at / width), floor(now / width)
        if current - index <= PARTS and index - current <= PARTS then
          if scope[place] ~= current then turn_to(scope, limit, current) end
          count_in(scope, limit, index, change)
          changed = true
        end
      end
    end
    if changed then write_scope(name, scope) end
  end
end
