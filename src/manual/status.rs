//! # The status endpoint and the log, for those who read them with programs
//!
//! Stable: fields, metrics and events are added, never renamed or given another meaning.
//!
//! ## Paths
//!
//! | path | verb | answer |
//! |---|---|---|
//! | `/healthz` | GET | 200 as long as the control thread turns |
//! | `/readyz` | GET | 200 if some pool that a listener leads to can take mail; 503 if not, or while draining; the reasons, one per line |
//! | `/readyz/P` | GET | 200 if pool `P` can take mail; 503 if not, or while draining, with the reasons; 404 if there is no such pool |
//! | `/status` | GET | JSON, as below |
//! | `/metrics` | GET | Prometheus text format 0.0.4, as below |
//! | `/` | GET | the status for people, without a script |
//! | `/reload` | POST | 200 if it took effect, 422 with every mistake if not |
//! | `/pools/P/backends/B` | PUT | `{"state": "ready"\|"drain"\|"maint", "weight": 1..1000\|null}`, one or both; 200 with the backend as it is now |
//! | `/pools/P/failback` | POST | 200: with `failback = "manual"`, the first tier may take over again |
//!
//! Any refusal is `{"error": …, "remedy": …}`: 400 the body or the `Host`, 401 the token, 403 no
//! token configured or a foreign `Host` or `Origin`, 404 no such path, pool or backend, 405 with
//! `Allow`, 408 the body did not come in time, 413 it is too long, 503 stopping, or too many
//! questions wait for a page.
//!
//! Over TCP everything but `/healthz`, `/readyz` and `/readyz/P` is answered only for a `Host` of
//! ours: `localhost`, a loopback address, what `[admin] hosts` names, and where the endpoint listens
//! on another address than loopback, any IP address and `hostname`. So a page of a foreign site
//! cannot read it by a name that is made to point here (DNS rebinding).
//!
//! Changing verbs over TCP need `Authorization: Bearer TOKEN` with the first line of
//! `[admin] token_file`, which is read anew each time; without that key they are refused, as they
//! are for pages of another site. On a Unix socket its group and permissions decide, and no token is
//! needed.
//!
//! Bounds, for each address of `[admin] bind`: 128 connections; one question per connection; header
//! 16 KiB and 64 lines within 2 s of the accept; body 64 KiB within 5 s; 5 s without reading an octet
//! of the answer; 30 s per connection; 4 pages gathered or sent at once, 32 questions (8 of one peer)
//! that wait for one. When one connection too many comes, the peer with the most silent connections
//! loses the oldest of them; while a page waits, one that has been on its way for 2 s is cut. So
//! health checks are always answered. A peer is an IPv4 address, a /64 of IPv6, or a user of the Unix
//! socket.
//!
//! ## `/status`
//!
//! **The whole answer**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `version` | string | The version of the program. |
//! | `hostname` | string | Our name in replies. |
//! | `pid` | number | The process id. |
//! | `phase` | string | `serving` or `draining`. |
//! | `ready` | bool | Whether it should be sent mail, as `GET /readyz` says. |
//! | `reasons` | array of strings | Why not, or what is wrong although it is ready. |
//! | `started_at` | number | When it started, in seconds since 1970. |
//! | `uptime_seconds` | number | How long it has been running. |
//! | `generation` | number | The generation of the configuration in force; the first is 1. |
//! | `last_reload` | object or null | The last reload that was asked for, if any. |
//! | `restart_needed` | array of strings | Changes of the configuration that take effect only after a restart, one sentence each. |
//! | `limits` | object | Amounts of the whole process and their limits. |
//! | `listeners` | array | Listeners by name. |
//! | `pools` | array | Pools by name. |
//! | `leaving` | array | Backends that no configuration names any more and that still have sessions. |
//! | `workers` | array | Data threads. |
//! | `log` | object | What the log could not write. |
//!
//! **`last_reload` (and the answer of `POST /reload`)**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `ok` | bool | Whether it took effect. |
//! | `generation` | number | The generation in force afterwards. |
//! | `at` | number | When, in seconds since 1970. |
//! | `trigger` | string | What asked: `signal`, `http`, `watch` or `discovery`. |
//! | `mistakes` | array of strings | Every mistake; empty if `ok`. |
//! | `changes` | array of strings | What changed, and what needs a restart. |
//!
//! **`limits`**
//!
//! Here as everywhere a session is a connection that was let in, until it begins to close. Refused
//! clients, checks of monitors and connections that linger behind their last reply are no sessions.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `sessions` | number | Sessions now. |
//! | `sessions_max` | number | The most there may be. |
//! | `descriptors` | number or null | Open descriptors, if they could be counted. |
//! | `descriptors_max` | number | The descriptor limit. |
//! | `resident_bytes` | number or null | Resident memory, if known. |
//! | `replay_bytes` | number or null | What copies of messages for replays take now. |
//! | `replay_bytes_max` | number or null | The most that they may take. |
//!
//! **`listeners[]`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `name` | string | The name. |
//! | `bind` | array of strings | Its addresses. |
//! | `mode` | string | `passthrough` or `smtp`. |
//! | `pool` | string | The pool it leads to. |
//! | `sessions` | number | Sessions now. |
//! | `sessions_max` | number | The most there may be; 0 is no limit of its own. |
//! | `accepted` | number | Connections accepted since the start. |
//! | `outcomes` | object of numbers | Ended connections by outcome, those that were turned away and the checks of monitors included; outcomes that never happened are absent. |
//! | `refusals` | object of numbers | Replies of our own that refused something (4yz and 5yz), by name; those that never happened are absent. |
//! | `bytes_to_backend` | number | Bytes from clients to backends. |
//! | `bytes_to_client` | number | Bytes from backends to clients. |
//! | `mail` | object or null | Its mail; `null` in mode `passthrough`. |
//!
//! **`listeners[].mail`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `transactions` | object of numbers | Ended transactions by outcome; outcomes that never happened are absent. |
//! | `recipients_accepted` | number | Recipients that backends took. |
//! | `recipients_refused` | number | Recipients that were refused, by a backend or by us. |
//! | `message_bytes` | number | Bytes of the messages that backends took. |
//!
//! **`pools[]`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `name` | string | The name. |
//! | `balance` | string | The policy. |
//! | `identity` | string | What backends are told of the client: `none`, `proxy-v1`, `proxy-v2`. |
//! | `usable` | number | Backends that can take sessions. |
//! | `all_down` | bool | Whether no backend is healthy. |
//! | `waiting` | number | Clients in the queue. |
//! | `waiting_max` | number | Clients the queue holds. |
//! | `failback_pending` | bool | Whether a standby tier serves and `POST /pools/P/failback` would end that. |
//! | `unresolved` | array of strings | Names of backends whose host name has no address that can be used (yet). |
//! | `unresolved_causes` | array of strings | Why, for each of them. |
//! | `tiers` | array | Tiers in order. |
//! | `quotas` | array | What its backends may be given in a time, and how much of it they were. |
//!
//! **`pools[].tiers[]`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `tier` | number | The rank, from 1. |
//! | `open` | bool | Whether it serves. |
//! | `backends` | array | Its backends, one for each address. |
//!
//! **`pools[].tiers[].backends[]` (and in the answer of `PUT`)**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `name` | string | The name. |
//! | `address` | string | The address. |
//! | `state` | string | One word: `drain` or `maint` if the operator set that, `full` where it is in service and its quota is used up, else as `health`. |
//! | `admin` | string | What the operator set: `ready`, `drain`, `maint`. |
//! | `admin_mark` | object or null | Who set that at run time; `null` where it is what the configuration says. |
//! | `health` | string | What was found: `unknown`, `up`, `degraded`, `down`, `ejected`. |
//! | `cause` | object | Why it is in this state. |
//! | `since` | number | When this state began, in seconds since 1970. |
//! | `since_seconds` | number | How long this state has lasted. |
//! | `ejected_for_seconds` | number or null | How long an ejection still lasts at most. |
//! | `ejections` | number | Ejections that count towards the length of the next one. |
//! | `consecutive_strikes` | number | Failed attempts since the last greeting. |
//! | `weight_configured` | number | The weight of the configuration. |
//! | `weight_override` | number or null | The operator's weight, if another one than the configured is set at run time. |
//! | `weight_mark` | object or null | Who set it; `null` where it is what the configuration says. |
//! | `weight_effective` | number | The weight as balancing sees it now (slow start). |
//! | `open` | number | Open connections. |
//! | `open_max` | number | The most there may be; 0 is no limit. |
//! | `in_flight` | number | Sessions now. |
//! | `totals` | object | Counts since the start. |
//! | `usual_greeting_ms` | number or null | The usual time from dial to greeting. |
//! | `probe` | object or null | The last probe. |
//! | `mail` | object or null | Its mail; `null` where no listener in mode `smtp` leads to it. |
//!
//! **`admin_mark`, `weight_mark`**
//!
//! A mark goes when the operator takes the setting back or when the configuration says the same; the
//! mark of the state also goes when a reload changes `state`.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `by` | string | An address, or `uid` and a number. |
//! | `at` | number | When, in seconds since 1970. |
//! | `seconds` | number | How long ago. |
//!
//! **`cause`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `words` | string | All of it in a few words, for people. |
//! | `origin` | string | `probe`, `session`, `operator`, `timer`, `reload` or `start`; `quota` of the state `full`. |
//! | `stage` | string or null | The step that failed. |
//! | `kind` | string or null | How it failed. |
//! | `code` | number or null | The reply code. |
//! | `text` | string or null | The reply's text or the error. |
//! | `duration_ms` | number or null | How long the step took. |
//! | `who` | string or null | Who, where it was an operator. |
//!
//! **`totals`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `attempts` | number | Dials for sessions. |
//! | `sessions` | number | Sessions it greeted, from the greeting on; in mode `smtp`, connections dialled for transactions. |
//! | `strikes` | number | Failed attempts that were its fault. |
//! | `hedges` | number | Dials because another backend was slow. |
//! | `bytes_to_backend` | number | Bytes from clients. |
//! | `bytes_to_client` | number | Bytes to clients. |
//!
//! **`probe`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `ok` | bool | Whether it was good. |
//! | `stage` | string | The last step it reached. |
//! | `kind` | string or null | How it failed. |
//! | `code` | number or null | The reply code that decided. |
//! | `text` | string or null | The reply's text or the error. |
//! | `age_seconds` | number | How long ago it ended. |
//! | `duration_ms` | number | How long it took. |
//! | `greeting_ms` | number or null | From connect to the greeting. |
//! | `full` | bool | It takes mail but says that it is full. |
//! | `keywords` | array of strings | EHLO keywords with their parameters. |
//! | `certificate_days` | number or null | Days until its certificate ends, where TLS was reached. |
//!
//! **`pools[].tiers[].backends[].mail`**
//!
//! All but `kept_idle` since the start.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `kept_idle` | number | Kept connections that wait for a transaction. |
//! | `transactions` | number | Transactions that ended here. |
//! | `accepted` | number | Messages it took. |
//! | `in_doubt` | number | Messages it was sent whole and did not answer; each may have been taken. |
//! | `dialled` | number | Connections that were dialled for a transaction. |
//! | `reused` | number | Kept connections that were given a transaction. |
//! | `kept_closed` | object of numbers | Kept connections that were closed, by cause: `idle`, `age`, `messages`, `backend`, `drained`, `shed`. |
//! | `moved` | object of numbers | Transactions moved to another backend, by cause: `lost`, `silent`, `closing`, `desync`, `unwell`, `quota`. |
//!
//! **`pools[].quotas[]`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `backend` | string | The name of the backend; all its addresses share the quota. |
//! | `unit` | string | What is counted: `messages` or `recipients`. |
//! | `used` | number | How many it was given within the last period, those in flight included. |
//! | `limit` | number | How many it may be given. |
//! | `period_seconds` | number | The length of the period. |
//!
//! **`leaving[]`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `pool` | string | The pool it was in. |
//! | `name` | string | The name it had. |
//! | `address` | string | The address. |
//! | `open` | number | Open connections. |
//!
//! **`workers[]`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `worker` | number | The index, from 0. |
//! | `sessions` | number | Sessions now. |
//! | `heartbeat_age_seconds` | number | Since it last showed that it is alive. |
//! | `loop_stalls` | number | Turns of its loop over 20 ms. |
//! | `panics` | number | Sessions ended by a fault of ours. |
//! | `accept_failures` | number | accept(2) failures for want of descriptors or memory. |
//! | `kept_idle` | number | Kept connections to backends that wait for a transaction. |
//! | `leased` | number | Connections to backends that transactions hold now. |
//!
//! **`log`**
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `dropped` | number | Lines dropped because the writer was behind. |
//! | `suppressed` | number | Lines left out by the storm limit. |
//!
//! `outcomes` and the metric's `outcome` use the same words; see
//! [`SessionOutcome`](crate::metrics::SessionOutcome); those of transactions are the words of
//! [`TransactionOutcome`](crate::metrics::TransactionOutcome).
//!
//! ## `/metrics`
//!
//! | metric | type | labels | meaning |
//! |---|---|---|---|
//! | `posthouse_build_info` | gauge | version | Always 1; the version is a label. |
//! | `posthouse_ready` | gauge |  | 1 if this process should be sent mail (as /readyz). |
//! | `posthouse_draining` | gauge |  | 1 while shutting down. |
//! | `posthouse_sessions` | gauge |  | Sessions now, of the whole process. |
//! | `posthouse_sessions_limit` | gauge |  | The most sessions there may be at once. |
//! | `posthouse_config_generation` | gauge |  | The generation of the configuration in force. |
//! | `posthouse_reloads_total` | counter | result | Reloads by result. |
//! | `posthouse_config_last_reload_timestamp_seconds` | gauge |  | When a reload was last tried; the start if never. |
//! | `posthouse_config_last_reload_successful` | gauge |  | 1 if the last reload took effect, or there was none. |
//! | `posthouse_probes_total` | counter | result | Probes by result. |
//! | `posthouse_backend_state_changes_total` | counter |  | State changes of backends. |
//! | `posthouse_log_dropped_lines_total` | counter |  | Log lines dropped because the writer was behind, of all threads. |
//! | `posthouse_log_suppressed_events_total` | counter |  | Log events (not lines of sessions and transactions) left out by the storm limit. |
//! | `process_open_fds` | gauge |  | Open descriptors. |
//! | `process_max_fds` | gauge |  | The descriptor limit. |
//! | `process_resident_memory_bytes` | gauge |  | Resident memory. |
//! | `process_start_time_seconds` | gauge |  | When the process started, in seconds since 1970. |
//! | `posthouse_listener_accepted_total` | counter | listener | Accepted connections. |
//! | `posthouse_listener_sessions` | gauge | listener | Sessions now. |
//! | `posthouse_sessions_total` | counter | listener, outcome | Ended connections by outcome: sessions, and those that were turned away. |
//! | `posthouse_refusals_total` | counter | listener, reply | Replies of our own that refused something (4yz and 5yz), by name; only those that happened. |
//! | `posthouse_listener_bytes_total` | counter | listener, direction | Bytes relayed by direction. |
//! | `posthouse_listener_early_talkers_total` | counter | listener | Clients that sent before the greeting. |
//! | `posthouse_listener_tarpitted_total` | counter | listener | Replies to mistakes that were held back. |
//! | `posthouse_greeting_seconds` | histogram | listener | From accept to the first octet to the client. |
//! | `posthouse_connect_seconds` | histogram | listener | From dialling a backend to connected. |
//! | `posthouse_session_seconds` | histogram | listener | From accept to the end of the session. |
//! | `posthouse_queue_seconds` | histogram | listener | Time in the queue, of sessions that waited. |
//! | `posthouse_pool_queue_waiting` | gauge | pool | Clients that wait for a backend. |
//! | `posthouse_pool_queue_limit` | gauge | pool | Clients that may wait for a backend. |
//! | `posthouse_pool_backends` | gauge | pool | Backends of the pool, by address. |
//! | `posthouse_pool_usable_backends` | gauge | pool | Backends that can take a session now. |
//! | `posthouse_pool_unresolved_backends` | gauge | pool | Backends whose host name has no address yet. |
//! | `posthouse_pool_all_down` | gauge | pool | 1 if no backend is healthy. |
//! | `posthouse_pool_open_tier` | gauge | pool | The last tier that is open; above 1 standby backends serve. |
//! | `posthouse_pool_failback_pending` | gauge | pool | 1 if the operator's failback is awaited. |
//! | `posthouse_backend_state` | gauge | pool, backend, address, state | 1 for the state the backend is in, 0 for the others. |
//! | `posthouse_backend_weight` | gauge | pool, backend, address | The weight as balancing sees it now (slow start included). |
//! | `posthouse_backend_open_connections` | gauge | pool, backend, address | Open connections. |
//! | `posthouse_backend_in_flight` | gauge | pool, backend, address | Sessions in flight. |
//! | `posthouse_backend_attempts_total` | counter | pool, backend, address | Dials for sessions. |
//! | `posthouse_backend_sessions_total` | counter | pool, backend, address | Sessions the backend greeted; in mode smtp, connections dialled for transactions. |
//! | `posthouse_backend_hedges_total` | counter | pool, backend, address | Dials because another backend was slow. |
//! | `posthouse_backend_extension_changes_total` | counter | pool, backend, address | Times it announced other extensions than before. |
//! | `posthouse_backend_strikes_total` | counter | pool, backend, address, stage, kind | Failed attempts that were the backend's fault, by stage and kind; only those that happened. |
//! | `posthouse_backend_bytes_total` | counter | pool, backend, address, direction | Bytes relayed by direction. |
//! | `posthouse_backend_greeting_seconds` | summary | pool, backend, address | From dial to the greeting. |
//! | `posthouse_backend_probe_successful` | gauge | pool, backend, address | 1 if the last probe was good. |
//! | `posthouse_backend_probe_seconds` | gauge | pool, backend, address | How long the last probe took. |
//! | `posthouse_backend_certificate_remaining_seconds` | gauge | pool, backend, address | Until the backend's certificate ends, in whole days, where probes reach TLS. |
//! | `posthouse_worker_sessions` | gauge | worker | Sessions now. |
//! | `posthouse_worker_heartbeat_age_seconds` | gauge | worker | Since the thread last showed that it is alive. |
//! | `posthouse_worker_loop_stalls_total` | counter | worker | Turns of the loop longer than 20 ms. |
//! | `posthouse_worker_log_drops_total` | counter | worker | Log lines dropped because the writer was behind. |
//! | `posthouse_worker_log_suppressed_total` | counter | worker | Lines of sessions and transactions left out by the storm limit. |
//! | `posthouse_worker_accept_failures_total` | counter | worker | accept(2) failed for want of descriptors or memory. |
//! | `posthouse_worker_panics_total` | counter | worker | Sessions ended by a fault of ours. |
//! | `posthouse_worker_spliced_total` | counter | worker | Directions moved to zero-copy. |
//! | `posthouse_worker_pipes_exhausted_total` | counter | worker | Zero-copy was wanted and no pipe was to be had. |
//! | `posthouse_worker_closing_connections` | gauge | worker | Connections now that are refused, answered as monitors or in lingering close; no sessions. |
//! | `posthouse_worker_closed_at_once_total` | counter | worker | Connections of these kinds that found no place and were closed with their first words. |
//! | `posthouse_worker_spilled_bytes` | gauge | worker | Bytes held for slow receivers now. |
//! | `posthouse_worker_queued_total` | counter | worker | Sessions that waited in a queue. |
//! | `posthouse_worker_failovers_total` | counter | worker | Attempts beyond the first one of a session. |
//! | `posthouse_replay_memory_bytes` | gauge |  | What copies of messages for replays take now. |
//! | `posthouse_replay_memory_limit_bytes` | gauge |  | The most that copies of messages for replays may take. |
//! | `posthouse_transactions_total` | counter | listener, outcome | Ended mail transactions by outcome. |
//! | `posthouse_recipients_total` | counter | listener, result | Recipients by result: taken by a backend, or refused by it or by us. |
//! | `posthouse_message_bytes_total` | counter | listener | Bytes of the messages that backends took. |
//! | `posthouse_transaction_mail_seconds` | histogram | listener | From MAIL to the 354. |
//! | `posthouse_transaction_reply_seconds` | histogram | listener | From the end of a message to the reply. |
//! | `posthouse_transaction_seconds` | histogram | listener | From MAIL to the last reply. |
//! | `posthouse_backend_transactions_total` | counter | pool, backend, address | Mail transactions that ended at the backend. |
//! | `posthouse_backend_messages_total` | counter | pool, backend, address | Messages the backend took. |
//! | `posthouse_backend_in_doubt_total` | counter | pool, backend, address | Messages the backend was sent whole and did not answer; each may have been taken. |
//! | `posthouse_backend_moves_total` | counter | pool, backend, address, cause | Transactions moved from the backend to another, by cause; only those that happened. |
//! | `posthouse_backend_kept_idle` | gauge | pool, backend, address | Kept connections that wait for a transaction. |
//! | `posthouse_backend_mail_connections_total` | counter | pool, backend, address, connection | Connections that transactions were given: dialled for them, or kept from others. |
//! | `posthouse_backend_kept_closed_total` | counter | pool, backend, address, cause | Kept connections that were closed, by cause; only those that happened. |
//! | `posthouse_backend_quota_used` | gauge | pool, backend, unit, window | What was used of the backend's quota within its window, mail in flight included. |
//! | `posthouse_backend_quota_limit` | gauge | pool, backend, unit, window | The backend's quota. |
//! | `posthouse_worker_kept_idle` | gauge | worker | Kept connections to backends that wait for a transaction. |
//! | `posthouse_worker_leased` | gauge | worker | Connections to backends that transactions hold now. |
//! | `posthouse_worker_mail_hedges_total` | counter | worker | Transactions begun again elsewhere because a backend was slow to answer MAIL. |
//! | `posthouse_worker_not_replayable_total` | counter | worker, cause | Messages that were not kept for a replay, by cause. |
//! | `posthouse_worker_early_replies_total` | counter | worker | Messages that a backend answered before their end. |
//!
//! Metrics of mail are there for listeners in mode `smtp` and the pools they lead to. Histogram
//! bounds are 1-2.5-5 steps from 100 µs to 1,000 s.
//!
//! ## The log
//!
//! Text is `time level event key=value …`, one line per event, values quoted where they must be;
//! JSON is one object per line with `time`, `level`, `event` and the same keys; the journal gets
//! the text as `MESSAGE`, `PRIORITY`, `EVENT`, and each key upper-cased with `_` for other
//! characters. Control characters and what turns the writing direction are always escaped. A value
//! is at most 1,024 octets.
//!
//! The time of a line is that of what it tells, to the microsecond, whenever the line is written: of
//! `session.end` and `transaction.end` the end, so that the time less `session_ms` or
//! `transaction_ms` is the begin. The durations in a line are measured on the same clock, and all
//! threads tell the time by the same difference to the wall clock, which changes only when that was
//! set. Lines of different threads may stand up to 150 ms out of order: sort by time.
//!
//! `session.id` has 16 hexadecimal digits. As text, the ids of one process sort in the order in which
//! its threads accepted the connections: the first 14 digits are the time in sixteenths of a
//! microsecond since 1970, the last two the worker. A process that is started again makes other
//! ids.
//!
//! `session.end`, one per session, and one per connection that was turned away; at level `info`, for
//! a monitor's check at `debug`: `session.id`, `listener`, `client.addr`, `via.addr` (where a PROXY
//! header named the client), `pool`, `backend`, `backend.addr`, `outcome`, `refused`, `refusals`,
//! `ended_by`, `phase`, `attempts`, `failures` (`backend/stage/kind[/code]/ms`, comma-separated; in
//! JSON an array of objects), `hedged`, `queue_ms`, `connect_ms`, `greeting_ms`, `session_ms`,
//! `octets.to_backend`, `octets.to_client`, `reply`. Absent facts are absent keys. `attempts` counts
//! dials; in smtp mode it counts the connections that all transactions of the session were tried
//! on, kept ones included, and `failures` are in the lines of the transactions.
//!
//! `refused` counts the replies of our own (not of a backend) that refused something: codes 4yz and
//! 5yz, at connect, to a command, at the end of a message or at a timeout. `refusals` tells the last
//! three of them, `command code text` with semicolons between them; in JSON an array of objects with
//! `command`, `code` and `text`. The command is the verb in lower case, `connect` before the first
//! one, `end-of-data` for the end of a message behind DATA, and `unknown` for any other line, of
//! which nothing is shown: it may be a password. A reply that answers no command names the last one
//! that was given. `posthouse_refusals_total` counts the same replies by name, which is the key in
//! `[listeners.NAME.smtp.replies]` or `[listeners.NAME.replies]` where they have one. At level
//! `debug` each of them has a line of its own: `session.refused` (`session.id`, `command`, `reply`,
//! `code`).
//!
//! The outcome of a session in smtp mode that ended in order (QUIT, or the end of the client's
//! direction) is `refused-by-us` if we refused it something and no message of it was accepted, else
//! `completed`: a client that was told `452` for one recipient and then delivered its message has
//! done what it came for. One that left by a reset, was timed out or was sent away has the outcome
//! for that, and its refusals in the line all the same.
//!
//! `transaction.end`, one per mail transaction of a listener in smtp mode: `session.id`,
//! `transaction` (its number in the session), `listener`, `client.addr`, `helo`, `pool`, `backend`,
//! `backend.addr` (the last backend that had it), `outcome`, `reason` (`quota` where it was refused, or
//! one of its recipients was, or it was moved, because a backend's quota had no room: that is no
//! failure of an attempt), `attempts`, `failures` (as above),
//! `kept` (whether a kept connection was used), `replayed` (moves to another backend), `size`,
//! `recipients.accepted`, `recipients.refused`, `mail_ms` (MAIL to the 354), `body_ms` (to the
//! client's end of the message), `reply_ms` (to the reply), `transaction_ms`, `reply` (with the
//! backend's queue id). Sender and recipients are said with `log.addresses` alone, as `sender` and
//! `recipients` (at most 8 KiB of them; `recipients.left_out` counts the rest). A message whose
//! fate is unknown has the outcome `in-doubt`, the level `warn`, a line even with
//! `log.transactions` off, and two digests to find it by: `envelope` and `body` (the first 128 bits
//! of the message's SHA-256). One that was in doubt and then said to another backend
//! (`replay_in_doubt`) has the digests too, and `in_doubt_at`, the backend that may have a second
//! copy; `transaction.in-doubt-sent-again` (`session.id`, `transaction`, `pool`, `backend`) warns of
//! it when it happens. `acked_unseen` is there where the client had left before it could be told of
//! the acceptance, and will send again; `reply_truncated` is there where an acceptance broke off before its end.
//!
//! The stages of a failure are `connect`, `identity`, `greeting`, `ehlo`, `starttls`, `mail`,
//! `rcpt`, `data` (awaiting 354), `content` (the message on its way), `end-of-data` (said whole and
//! not answered) and `quit`.
//!
//! `backend.state`, one per change: `pool`, `backend`, `backend.addr`, `from`, `to`, and why: `cause`
//! in words, `cause.origin`, `cause.stage`, `cause.kind`, `cause.code`, `cause.text`, `cause.ms`,
//! `cause.who`. `pool.tier_opened`, `pool.tier_closed`: `pool`, `tier`, `weight.usable`,
//! `weight.configured`.
//!
//! `backend.quota`: `pool`, `backend`, `state`, `used`, `limit`, `unit`, `window`. The state is `near`
//! when 80 % of a quota are used, `used-up` when all of it is (both at level `warn`), and `free` when
//! the use of one that was used up has fallen below 90 %. `near` is said again only after the use has
//! fallen below 70 %, and `used-up` after `free`, each time for a minute; so a quota that is used all
//! the time, of which some comes free and is used again, is said once. Only windows of an hour or
//! longer are said: one of a second fills and empties as mail comes. Metrics and status show all.
//!
//! `admin.changed` (info) and `admin.refused` (warn), one per change that the status endpoint is asked
//! for: `who` (address and port, or `uid` and `pid` of a Unix socket's client), `by` (`token` or
//! `socket`; absent if there was no right), `change` (`reload`, `failback`, `backend`), `pool`,
//! `backend`, `state`, `weight`; of a refusal `status` and `error`. `admin.refused` with `path` is a
//! page that was asked of a foreign `Host`. The token is never in the log.
//!
//! `backend.limit-learned`: `pool`, `backend`, `backend.addr`, and after how many `messages` it ends
//! a connection, seen twice; for an hour no connection of this worker is kept for more.
//!
//! Nobody waits for the log: when its reader is stuck, lines are dropped, counted, and
//! `log.dropped` says how many (`lines`, `lines.total`). A storm is cut: per second and worker 50
//! session lines of each outcome but `completed`, 50 transaction lines of each outcome but
//! `accepted` and `in-doubt`, and 200 events of each name; `log.suppressed` says once per second
//! how many were left out (`lines`, and one key per outcome or name; of transactions
//! `transactions.` and the outcome).

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::admin::views;
    use crate::metrics::exposition::catalogue;

    const PAGE: &str = include_str!("status.rs");

    #[test]
    fn every_metric_is_on_this_page() {
        for (name, kind, help) in catalogue() {
            let row = format!("//! | `{name}` | {kind} |");
            let found = PAGE.lines().find(|line| line.starts_with(&row));
            assert!(
                found.is_some_and(|line| line.contains(help)),
                "{row} … {help}"
            );
        }
    }

    #[test]
    fn every_field_of_the_status_is_on_this_page() {
        let backend = views::Backend {
            admin_mark: Some(views::Mark::default()),
            probe: Some(views::Probe::default()),
            mail: Some(views::BackendMail::default()),
            ..views::Backend::default()
        };
        let listener = views::Listener {
            mail: Some(views::ListenerMail::default()),
            ..views::Listener::default()
        };
        let status = views::Status {
            last_reload: Some(views::Reload::default()),
            listeners: vec![listener],
            pools: vec![views::Pool {
                tiers: vec![views::Tier {
                    backends: vec![backend],
                    ..views::Tier::default()
                }],
                quotas: vec![views::Quota::default()],
                ..views::Pool::default()
            }],
            leaving: vec![views::Leaving::default()],
            workers: vec![views::Worker::default()],
            ..views::Status::default()
        };
        let mut names = BTreeSet::new();
        collect(
            &serde_json::to_value(status).expect("plain data"),
            &mut names,
        );
        assert!(names.len() > 85, "the sample holds every struct");
        for name in names {
            assert!(PAGE.contains(&format!("//! | `{name}` | ")), "{name}");
        }
    }

    fn collect(value: &Value, names: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    names.insert(name.clone());
                    collect(inner, names);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
