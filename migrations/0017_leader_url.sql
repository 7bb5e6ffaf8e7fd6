-- Where the leader can be reached: standbys pass on what they may not answer. Written with the takeover, so that it never
-- names another than the instance beside it.
alter table leader add column url text not null default '';
