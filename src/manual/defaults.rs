//! Every bound that is not a configuration key, its number and its reason.
//!
//! Keys, their defaults, ranges and behaviour at the limit are in `config/reference.toml`.
//!
//! | bound | number | where | why, and what happens at the limit |
//! |---|---|---|---|
//! | scratch of a thread | 64 KiB | `session::context` | larger than any burst of a dialogue, so that one read ends a turn |
//! | held for a slow receiver | 64 KiB per direction | `net::pump` | one scratch; the sender is not read until it has gone out |
//! | one direction's turn | 1 MiB or 64 reads | `net::pump` | then other sessions of the thread run |
//! | bulk before splicing | 96 KiB beyond 16 KiB a read | `net::pump` | splice pays only for streams; in a dialogue a copy is cheaper |
//! | pipes | 64 per worker, 200 in all, 256 KiB each | `worker`, `net::pipe` | the kernel allows 256 such pipes to one user; none free: copy, counted |
//! | lingering closes of what was served | a place for each 64 descriptors of the limit, at most 2,048 in all and at least 4 per worker; 2 s, 64 KiB each | `session::closing_places`, `net::linger` | none is a session; beyond: a plain close, counted |
//! | connections that are refused | as many again; one client address has a quarter of a worker's places, at least 2 | `session::closing_places` | none is a session; beyond: the reply in one write and a close, counted |
//! | checks of monitors | 32 in all and at least 4 per worker, a quarter for one address, at least 2 | `session::closing_places` | beyond: greeted and closed, counted |
//! | denied and monitor dialogues | 5 s, 5 commands, 64 KiB | `session::closing`, `smtp` | then closed |
//! | attempts when no backend is healthy | 8 | `session::connect` | connect 1 s, greeting 3 s each, within `failover_timeout` |
//! | concurrent attempts of a session | 2 | `session::connect` | the second is a hedge |
//! | PROXY header received | 4,096 octets | `identity` | closed |
//! | PROXY header sent | 232 octets (`proxy_header_max`, ≤ 536) | `identity` | TLVs are dropped in a fixed order |
//! | reply of a backend | 4,096 octets a line, 128 lines, 64 KiB | `smtp::reply` | garbage: a strike, the next backend |
//! | reply written to a client | 512 octets a line | `smtp::replies` | the line becomes several |
//! | command line of a client | 2,048 octets; 12,288 within AUTH | `smtp::line` | dropped to its end, answered once; after 1 MiB without end the session is closed |
//! | name in EHLO and HELO | 255 octets | `smtp::command` | `501 5.5.4` |
//! | mistakes of a session | 10 error points, 100 junk points | `smtp::budget` | `421 4.7.0`, closed |
//! | sessions whose replies are held back (`tarpit`) | 1,024 of the process | `smtp::tarpit` | others are answered at once |
//! | AUTH mechanisms recorded of a backend | 32 of 20 octets | `smtp::extensions` | the rest is not recorded |
//! | held of a message that is scanned | 2 octets | `smtp::data` | what they mean is decided by the next octet |
//! | message that cannot be replayed | 64 KiB received and not sent | `smtp::body` | the client is not read; while a kept copy is being freed, up to a third of that copy more |
//! | digested at a time | 256 KiB | `smtp::body` | freed memory waits for the next call |
//! | message on average | 100 octets a second, behind 60 s | `smtp::pace` | `421 4.4.2` |
//! | commands of a transaction | 8 KiB, then out of `replay_memory` in steps of 16 KiB | `smtp::mail_session` | `452 4.3.1` to RCPT |
//! | first MAIL of a session | 600 s | `smtp::mail_session` | `421 4.4.2` |
//! | message over the size limit | read on for 60 s and up to twice the limit | `smtp::mail_session` | `552 5.3.4`, closed |
//! | replies a client does not read | 64 KiB, then neither it nor its backend is read | `smtp::mail_session` | closed |
//! | said by a client ahead of our replies | 64 KiB | `session::mail` | it is not read on |
//! | replies that a client leaves | 64 KiB | `smtp::mail_session` | neither it nor its backend is read on |
//! | rounds of a session in mode "smtp" | 32 in one poll | `session::mail` | then other sessions of the thread run |
//! | moves of a transaction | 2, up to 60 s behind the end of its message | `smtp::exchange` | `451 4.4.2`: the client sends it again |
//! | last reply of a session in mode "smtp" | 10 s to be read | `session::mail` | closed; so is one that said QUIT while its backend is silent |
//! | look at the backend of an open transaction | 1 s | `session::mail` | one that has been found down is left |
//! | kept connections, idle or saying QUIT | 1,024 of all workers, 2 s for QUIT | `session::keeper` | more are closed without a word |
//! | a connection that is being opened (`max_opening`) | counts for 100 ms at most; its turn is looked at after 2 ms, then up to every 32 ms | `balance::opening`, `session::connect` | others wait, within `failover_timeout` |
//! | what a backend allows per connection | seen twice, remembered for 1 h | `session::keeper` | then `max_messages` is tried again |
//! | backends dialled for `min_idle` | 4 at once per worker | `session::warm` | the others with the next heartbeat, 100 ms later |
//! | parts of a quota's span | 64, and one more is counted | `balance::quota` | a quota is full up to 1/64 of its span longer |
//! | windows of a backend's quotas | 16 | `balance::quota` | of quotas that are not configured any more, the counts that rested longest are forgotten |
//! | quotas of backends that are not configured | 1,000 backends | `snapshot::registry` | those that were used longest ago begin at zero when they return; said |
//! | saves of `state_file` | 2 s, 128 MiB | `control::quotas` | a crash forgets what came since; a file that cannot be read is put aside |
//! | waits for `state_file` | 5 s | `control::quotas` | the process starts, or ends, without it and says so; a save that gets through takes the file over |
//! | quotas of a backend | 8 | `config` | a mistake that says so |
//! | accepted in a row | 1 per listening socket and turn of the event loop; 16 after a turn of 2 ms or more | `net::accept` | the sessions that are served already come first; the queue is the kernel's |
//! | tasks polled in a turn | 256 | `net::event_loop` | then the sockets are looked at |
//! | pause after accept fails | 100 ms | `worker::accept` | counted; a warning once in about ten seconds |
//! | worker heartbeat | 100 ms; later than 20 ms is a stall | `worker::heartbeat` | counted |
//! | keepalive on a backend leg | set after 10 s; 60 s, then 6 × 10 s; user timeout 120 s | `session::relay` | a short session is spared five system calls |
//! | configuration or backends file | a regular file of 16 MiB | `config` | a mistake that says so |
//! | read of a file by the running process | 5 s; 10 s for all files of a reload | `control::reload`, `admin::token` | given up and named in the log; only that reload, or change over the endpoint, fails |
//! | reads of files at once, those given up included: of reloads, of the watch, of the token file | 8 each, and 2 given up of one file | `control::reading` | one more waits until one returns or its own time is over |
//! | look-up of a name | 5 s; 32 at once; 64 addresses; again by its TTL, 1 s to 5 min | `control::discovery` | failed: the last good answer is kept, again after 5 s |
//! | mistakes kept of one load | 500 | `config` | the rest is counted; an error is never lost behind warnings |
//! | listeners, pools, backends of a pool | 65,536 each | `config` | a mistake that says so |
//! | backends read one by one at a pick | 64 | `balance::policy` | above that a heap, a weight tree or a table answers |
//! | backends a session remembers as tried | 8 | `balance::member` | the ninth takes the place of the first |
//! | races lost for a last place | 8 | `balance::pick` | then the pool counts as full |
//! | slots of a source-hash table | 65,537 to 650 backends, else 1,048,583; one table per set of open tiers | `balance::policy::source_hash` | 4 octets each |
//! | slots asked for one client | 64 | `balance::policy::source_hash` | then any backend that can take it |
//! | events kept between ticks of a pool | 256 | `balance::shared` | the oldest go first |
//! | clients in a listener's table of limits | 1,048,576 in 64 shards, 60 octets each and 60 more while only its rate is remembered: 120 MiB | `balance::admit` | a client without sessions goes first, the one whose rate would be forgotten soonest; while all have sessions, newcomers share one entry per IPv4 /16 or IPv6 /48 |
//! | networks that share an entry in such a table | 65,536 | `balance::admit` | then refused as `TableFull`: `421 4.3.2` |
//! | slow start | from 1/16 of the weight | `balance::slow_start` | grows in a straight line over `slow_start` |
//! | connections to the status endpoint | 128; the kernel's queue 4,096 | `control::descriptors`, `admin` | when one more comes, the peer with the most silent connections loses the oldest of them, once that has been silent for 50 ms |
//! | header of a question | 2 s from the accept, 16 KiB, 64 lines | `admin` | closed |
//! | body of a question | 5 s, 64 KiB | `admin` | `408`, `413` |
//! | answer that is not read | 5 s without an octet; 30 s for the whole connection | `admin::timeouts` | closed |
//! | pages gathered or sent | 4 at once; 32 questions wait, 8 of one peer | `admin::routes` | the one that has been on its way longest gives way after 2 s; more questions get `503`; health checks need no place |
//! | lines that wait for the log's reader | 64 batches of 64 KiB, 256 KiB of events | `telemetry` | dropped, counted, said by `log.dropped` |
//! | one kind of line in a second | 50 per worker and outcome (not of what went well, nor of messages in doubt), 200 per event | `telemetry::storm` | counted, said by `log.suppressed` |
//! | a quota that is said to be near, used up, free again | 80 %, 100 %, below 90 %; windows of an hour or longer | `balance::quota` | near is said again after it was below 70 %; to be below counts after a minute |
//! | refusals that a session's line tells | 3, of 300 octets each | `session::refusals` | the last ones; all are counted |
//! | a value in the log | 1,024 octets; a reply 512, recipients 8 KiB together | `telemetry` | cut; recipients that are left out are counted |
//! | a signal without meaning | one log line a minute for each | `control::signals` | SIGXFSZ may come from that very line |
//! | known words that a mistake lists | 8 | `config::near` | those most alike; the rest is counted |
//! | networks that an advice names | 8 | `config::value` | the rest of a range is counted |
//! | listeners named in a log line of the start | 32 | `control::announce` | the rest is counted |
