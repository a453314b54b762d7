-- Raise an organization's revision: callers that know an older one are refused. It never falls while anybody may know
-- an older one.
--
-- ARGV: organization, revision. Reply: the revision that stands.
local name = key('revision', ARGV[1])
local known = call('GET', name)
if known and tonumber(known) >= tonumber(ARGV[2]) then return tonumber(known) end
call('SET', name, ARGV[2], 'PX', REVISION_MS)
return tonumber(ARGV[2])
