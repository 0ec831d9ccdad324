//! Known disasters of mail proxies and balancers, and what rules each out here.
//!
//! By the type or the bound where there is one, because that cannot be forgotten; by a test in any
//! case. A test at the end of this file finds every test that is named. Numbers are in
//! [`defaults`](super::defaults), rules in [`rules`](super::rules).
//!
//! | disaster | how it happens | what rules it out | shown by |
//! |---|---|---|---|
//! | the dead backend | A balancer that is blind after `connect()` joins a client to a backend that then refuses, resets or is silent. | The client is not written to before a backend has greeted: `Unsent` becomes `Live` with the first octet, and a retry exists for `Unsent` only. Rule S8. | `rule_s8_the_first_whole_line_of_a_220_commits` `a_dead_backend_is_never_met_s9` |
//! | the greeting deadlock | The balancer waits for the whole of a greeting whose backend waits for the client, or reads the client first on a port where the server speaks first. | The first line commits; the client's socket is not read before; every wait has a deadline. | `postscreen_teaser_reaches_the_client_before_the_final_greeting` `a_teaser_reaches_the_client_before_the_rest_s8` |
//! | the multi-line greeting | A check that knows only one line takes postscreen for dead. | One reply reader for probes and sessions. Rule G6. | `rule_h1_each_depth_says_one_command_per_flight_and_quits` `postscreen_is_up_for_probes_and_gives_them_no_bad_marks` |
//! | the endless greeting | A backend that never ends its line or its reply fills memory. | `REPLY_LINE_MAX`, `REPLY_LINES_MAX`, `REPLY_MAX`; verdicts at the octet that passes them. | `limits_hold_at_the_octet` `garbage_is_known_at_its_first_octet` |
//! | shopping for a verdict | A client that one backend refuses by policy is tried at all others: limits multiply, block lists are asked again. | `judge_greeting` relays what is about the client. Rule S9. | `rule_s9_real_greetings_are_judged_by_the_table` |
//! | one bad client ejects the fleet | A 5yz to a spammer counts as the backend's fault. | Policy replies are no strike; another 5yz is one only after three distinct clients; the last usable backend is never ejected. | `a_refusal_counts_once_three_distinct_clients_met_it` `the_last_usable_backend_over_all_tiers_is_not_ejected` |
//! | PROXY spoofing | A client sends a PROXY header and is whoever it likes. | `required` only with `trusted_proxies`, never guessed; an untrusted peer is closed before its octets are looked at. Rule X1. | `an_untrusted_peer_is_closed_at_once_x1` `a_client_that_bypasses_haproxy_is_not_served` |
//! | the header that means two things | Two readers disagree on where a header ends or whom it names, and the rest is read as commands. | Canonical v1 only, exact lengths, checksums; a second implementation disagrees in the fuzzer or nowhere. Rules X3 to X6. | `rule_x3_v1_that_is_not_canonical_is_refused_at_once` `rule_x6_a_tlv_running_past_the_header_is_refused_at_once` |
//! | the header in two segments | Postfix, Exim and Dovecot give up on a header that is split, so long ones fail at random. | On the stack, one write, at most 232 octets, TLVs left out rather than cut. Rules X10, X11. | `rule_x11_tlvs_are_dropped_in_order_and_never_cut` `exim_sees_the_client_with_proxy_v2` |
//! | off by one | A backend that expects no header takes it for commands; every later reply answers the command before. | Probes find it and the backend does not serve. Rule X13. | `rule_x13_a_header_read_as_commands_is_a_mismatch` `a_pool_whose_backends_expect_no_header_finds_out_by_its_probes` |
//! | the open relay through the balancer | The backend trusts the balancer's address, and so everybody behind it. | PROXY carries the client; `check --live` asks for a foreign recipient. Rule D11. | `an_open_relay_through_us_is_found` `rule_d11_the_relay_test_records_the_answer_and_fails_nothing` |
//! | STARTTLS injection towards clients | Octets sent in clear text are read as said inside TLS (CVE-2011-0411, CVE-2014-3556). | Passthrough never reads commands: TLS is end to end. | `starttls_is_end_to_end_with_the_certificate_of_postfix` |
//! | STARTTLS injection towards probes | A reply injected behind the 220 to STARTTLS is taken for one inside TLS (CVE-2021-38371). | Octets behind that 220 end the probe; keywords are forgotten. Rules T2, T3. | `rule_t2_octets_behind_the_220_to_starttls_end_the_probe` `what_a_backend_announces_is_recorded_and_forgotten_at_tls` |
//! | the probe that gets listed | A probe talks before the greeting ends, or sends two commands at once, and the backend lists or closes us. | The machine sends in answer to a whole reply only, one command each time. Rules H6, P6. | `rule_h6_nothing_is_said_before_the_last_line_of_the_greeting` `active_probes_leave_no_complaint_in_the_log_of_postfix` |
//! | the probe that delivers mail | A check leaves messages behind. | There is no DATA in the probe's machine. Rule H1. | `the_corpora_are_handled` `rule_h1_each_depth_says_one_command_per_flight_and_quits` |
//! | command injection by configuration | A line end in a name of a probe starts another command. | `send` leaves control octets out; the reader of the configuration refuses them. | `a_name_cannot_smuggle_a_command` `mailboxes_have_a_domain_and_no_brackets` |
//! | the early talker | Spam software that talks first hides behind a proxy that holds its octets back. | They stay in the kernel, are seen there, and `early_talker` decides. Rule S14. | `an_early_talker_is_rejected_where_asked_and_else_delivered_s14` |
//! | the message cut short | A proxy turns a reset into a clean end, and a server delivers half a message. | RST goes on as RST. Rule K4. | `a_reset_of_the_client_is_a_reset_at_the_backend` `a_client_that_resets_within_the_message_leaves_none` |
//! | the lost 250 | "Either end closes both": the acknowledgement is lost, and the message comes twice. | Each direction ends by itself. Rule K3. | `the_250_comes_back_after_the_client_half_closed_behind_the_final_dot` |
//! | the reply that a reset overtakes | Closing with unread input resets the connection, and the client never reads the 421. | Lingering close, bounded in number, time and octets. Rule K5. | `a_client_that_keeps_pipelining_still_reads_the_421_k5` |
//! | the splice hang | `splice` says "not now" for a full pipe and for an empty socket alike; a pump that waits for the wrong one waits for ever. | The pump knows what is in its pipe and asks both ends. | `bulk_arrives_unchanged_through_pipes` `large_messages_cross_two_hosts_whole_and_without_a_stall` |
//! | pipes run out | The kernel bounds the pipes of a user; a proxy that needs one per session stops. | Pipes are pooled and bounded; none free means copying. | `bulk_arrives_unchanged_when_pipes_run_out` |
//! | the receiver that does not read | Octets pile up in memory. | One scratch per direction; then the sender is not read. | `a_receiver_that_does_not_read_stops_the_sender` |
//! | resets by SO_REUSEPORT | Closing one listener of a group resets what waits in its accept queue; another process on the port takes half of the clients. | Listeners live as long as the process, a removed one drains its queue; a trial bind finds strangers. | `a_reuseport_socket_of_somebody_else_is_found_and_named` `an_address_that_changes_its_listener_stays_bound` |
//! | slowloris | Clients that say nothing, or an octet a minute, hold sessions. | Deadlines for header, dial and silence; limits per client and listener; a closing dialogue is 5 s and 5 commands. | `one_client_has_so_many_sessions_and_no_more` `an_endless_line_is_dropped_and_answered_once` `a_session_without_an_octet_ends_by_a_reset_of_both` |
//! | the pipelined flood | Millions of commands behind a refusal fill the reply buffer. | Replies are counted; what follows the last is dropped. | `a_pipelined_flood_gets_five_short_replies` |
//! | descriptors run out | Accept fails in a loop and the process spins, or a dial fails half-way. | The limit is checked against the configuration at the start; accept pauses; our own want is no backend's fault. | `a_max_sessions_that_cannot_fit_is_refused_with_numbers_and_remedy` `our_own_want_of_descriptors_is_no_verdict` |
//! | the count that leaks | A session that ends badly keeps its place, until nobody gets one. | Places are values that give themselves back when dropped, in a panic too. | `a_session_that_panics_gives_its_place_back` `threads_never_pass_a_limit_and_leave_nothing_behind` |
//! | the thundering return | A backend that comes back gets everything at once and falls again. | Slow start, hysteresis, growing ejections. | `every_return_starts_slowly_and_ticks_let_it_grow` `ejections_grow_to_five_minutes_and_shrink_when_it_is_well` |
//! | hedges that double the load | All backends slow, all sessions dial twice. | A budget of a tenth of the sessions and a burst. | `hedges_are_a_tenth_of_sessions_and_a_burst` |
//! | everything ejected | A broken network makes every backend look bad, and nobody is served. | The last usable one stays; when all are down all are tried. | `the_last_resort_ignores_health_but_not_the_operator` `the_last_usable_backend_is_not_ejected_until_another_returns` |
//! | the reload that forgets | Health, counts or sessions are lost, or an invalid file stops the service. | A registry outlives snapshots; an invalid file is refused whole. | `the_operators_weight_and_state_survive_a_reload` `many_mistakes_of_every_kind_are_all_found_at_once` |
//! | the loop | A balancer is its own backend, and one session becomes all of them. | Refused at load, and by the UNIQUE_ID at run time. Rule M5. | `addresses_that_meet_or_lead_back_to_us_are_refused` `rule_m5_a_header_with_our_own_id_is_a_loop` |
//! | log storms | A refused crowd writes a line each and the disk, or a stuck pipe, stops the service. | Bounded buffers, a writer thread, storms counted instead of written. | `a_storm_of_one_outcome_is_counted_instead_of_written` `a_stuck_pipe_stops_nobody_and_what_is_lost_is_counted` |
//! | lies in the log | A reply with line ends or escapes forges log lines or rules a terminal. | Texts of peers are printable ASCII, 200 octets. | `texts_for_logs_are_short_and_printable` `text_quotes_only_what_needs_it_and_hides_controls` |
//! | a panic takes all | One session's bug ends the process. | A panic ends its session and is counted; readers are fuzzed. | `parsing_never_panics_on_any_octets` `the_corpus_is_handled` |

#[cfg(test)]
mod tests {
    use super::super::cited;

    #[test]
    fn every_test_named_here_exists() {
        cited::assert_all_exist(include_str!("attacks.rs"));
    }
}
