-- Raise an organization's revision: callers that know an older one are refused. It never falls while anybody may know
-- an older one.
--
-- ARGV: organization, revision. Reply: the revision that stands.
local REVISION_MS = 86400000 -- a day: longer than any process works by what it looked up once
local name = key('revision', ARGV[1])
local known = redis.call('GET', name)
if known and tonumber(known) >= tonumber(ARGV[2]) then return tonumber(known) end
redis.call('SET', name, ARGV[2], 'PX', REVISION_MS)
return tonumber(ARGV[2])
