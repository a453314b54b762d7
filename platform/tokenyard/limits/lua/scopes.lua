-- Change what one scope counts for a request: slots, requests and tokens. A window that has forgotten the request stays
-- as it is.
local function change_scope(name, value, admitted_at, slots, requests, tokens)
  local minute, day = math.floor(admitted_at / MINUTE_PART), math.floor(admitted_at / DAY_PART)
  if value and requests == 0 then
    local used, part1, sum1, new1, part2, sum2, new2, part3, sum3, new3, part4, sum4, new4 = struct.unpack(FRONT, value)
    if part2 == minute and part4 == day and used + slots >= 0 and new2 + tokens >= 0 and new4 + tokens >= 0 then
      -- It was short: the sub-buckets in which it counts are the newest still.
      redis.call('SETRANGE', name, 0, struct.pack(FRONT, used + slots, part1, sum1, new1,
        part2, sum2 + tokens, new2 + tokens, part3, sum3, new3, part4, sum4 + tokens, new4 + tokens))
      return
    end
  end
  local scope = read_scope(value)
  scope[1] = math.max(0, scope[1] + slots)
  if requests ~= 0 then
    count_in(scope, 1, minute, requests)
    count_in(scope, 3, day, requests)
  end
  if tokens ~= 0 then
    count_in(scope, 2, minute, tokens)
    count_in(scope, 4, day, tokens)
  end
  write_scope(name, scope)
end

-- Do so for `scopes`, separated by spaces.
local function change_scopes(scopes, admitted_at, slots, requests, tokens)
  for scope in string.gmatch(scopes, '%S+') do
    local name = key('windows', scope)
    change_scope(name, redis.call('GET', name), admitted_at, slots, requests, tokens)
  end
end
