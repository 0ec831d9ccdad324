//! The rules of SMTP and its neighbours that bind passthrough and probes.
//!
//! Each has an id, by which code and tests cite it ("rule S8"), and the tests that show it; a test
//! at the end of this file finds every one of them. Rules that only concern the mode in which SMTP
//! ends at Posthouse are not here yet. Behaviour of named servers was seen in a laboratory or is in
//! their documents. Settled against doubt: the promises first, then these rules.
//!
//! # Replies (G)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | G5 | A reply is lines of one code, 200 to 599; the last has SP or nothing behind the code. At most 4,096 octets a line, 128 lines, 64 KiB. Anything else ends the connection. RFC 5321 §4.2. LF alone ends a backend's line too: clients take it, and nothing of ours can make a backend echo one. | `rule_g5_what_is_not_a_reply_is_refused_at_its_first_wrong_octet` `limits_hold_at_the_octet` `a_verdict_once_reached_stays` |
//! | G6 | Any reply may have several lines, a greeting and a refusal too. | `the_forms_of_rfc_5321_are_read` `rule_s6_any_other_code_needs_the_whole_reply` |
//! | G7 | The code decides, an unknown one by its first digit; texts decide only where [`judge_greeting`](crate::smtp::judge_greeting) and the probe say so. 1yz and garbage are fatal. | `the_forms_of_rfc_5321_are_read` `garbage_is_named` |
//!
//! # Sessions (S)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | S6 | Only 220 is a good greeting, and it may have many lines. After our own 554 every command is answered 503 until QUIT; after 421 we close. | `rule_s6_a_denied_client_hears_503_until_it_quits` `rule_s6_any_other_code_needs_the_whole_reply` |
//! | S7 | A connection that is accepted proves nothing: Postfix at its process limit, or without a working smtpd, accepts and is silent. The greeting has its own timer, and its latency is exported. | `a_backend_that_does_not_greet_is_replaced_s7_s9` `postfix_at_its_process_limit_is_replaced_before_the_client_sees_anything` |
//! | S8 | Nothing reaches the client before a backend has greeted, so any number may be tried. The commit is the first whole line that begins with 220, not the last: postscreen's teaser must arrive as a teaser. After it, no other backend. | `rule_s8_the_first_whole_line_of_a_220_commits` `postscreen_teaser_reaches_the_client_before_the_final_greeting` |
//! | S9 | The next backend is tried after a refused or failed connect, an end, a reset, garbage or silence before the commit, and after a 4yz. When the backend knows the client, x.7.x and per-client limits are verdicts about that client and are relayed: shopping around would multiply limits and block-list look-ups. Otherwise every bad greeting is the backend's. | `rule_s9_real_greetings_are_judged_by_the_table` `a_greeting_that_is_no_refusal_is_never_relayed` |
//! | S12 | At most three backends, 3 s for each connect, 20 s in all: client libraries give up at about 30 s. | `at_most_three_backends_are_tried_s12` |
//! | S14 | What a client says before its greeting stays in the kernel until the commit; then postscreen can no longer tell that it was early, so `early_talker` can log it or answer 554 5.5.0. | `an_early_talker_is_rejected_where_asked_and_else_delivered_s14` |
//!
//! # Probes (P, T, H)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | P6 | Nothing follows EHLO, STARTTLS or any other command of ours in its flight: Postfix answers 554 and closes. | `rule_h1_each_depth_says_one_command_per_flight_and_quits` |
//! | P7 | So EHLO and QUIT in one packet is no probe. | `rule_h1_each_depth_says_one_command_per_flight_and_quits` |
//! | T2 | Octets behind the 220 to STARTTLS end the probe: whoever put them there could speak inside TLS. | `rule_t2_octets_behind_the_220_to_starttls_end_the_probe` |
//! | T3 | What was announced before TLS is forgotten. | `what_a_backend_announces_is_recorded_and_forgotten_at_tls` |
//! | H1 | Connect, PROXY LOCAL where the pool sends headers, the whole greeting, EHLO, then by depth STARTTLS and EHLO, MAIL, RCPT and RSET; QUIT, and 2 s for the 221. Never DATA. At depth `mail`, STARTTLS is used where it is announced; at depth `starttls` it must be. | `rule_h1_each_depth_says_one_command_per_flight_and_quits` `without_recipient_mail_is_taken_back_at_once` |
//! | H2 | A greeting alone is no proof: Exim without the PROXY header it needs greets, and refuses EHLO. | `rule_x13_a_header_that_is_missed_is_a_mismatch` |
//! | H3 | Probes use the address, port, TLS and identity that sessions use. | `a_pool_whose_backends_expect_no_header_finds_out_by_its_probes` |
//! | H4 | Down: silence, an end, garbage. Refusing: 4yz, 5yz. Misconfigured: no STARTTLS, PROXY mismatch. Full: 421 with 4.3.x or 4.7.0, or "too many" without an enhanced code; then it is degraded, never down. Not 4.3.0: that is Postfix without the PROXY header it needs. A greylisted RCPT is good. | `rule_h4_refusals_are_told_from_being_full` `rule_h4_greylisting_is_not_down` `a_full_backend_is_degraded_and_never_down` |
//! | H5 | A probe that can still talk ends with QUIT, or the backend's log fills with complaints. A missing 221 fails nothing. | `rule_h5_a_missing_221_fails_no_probe` `active_probes_leave_no_complaint_in_the_log_of_postfix` |
//! | H6 | Nothing is said before the greeting's last line: postscreen sends it after 6 s and lists who talks earlier. | `rule_h6_nothing_is_said_before_the_last_line_of_the_greeting` `postscreen_is_up_for_probes_and_gives_them_no_bad_marks` |
//! | H7 | Sessions are the better probe: failures before the commit eject; a 5yz about one client does not. `check --live` asks for RCPT to a foreign domain. | `five_strikes_in_a_row_eject_and_a_greeting_starts_the_count_anew` `a_refusal_counts_once_three_distinct_clients_met_it` |
//! | D11 | Postfix lets `mynetworks` relay, and exempts it from its defence against bare LF and from its limits. Our address belongs into it only where PROXY carries the client; otherwise the backend is an open relay through us. | `rule_d11_the_relay_test_records_the_answer_and_fails_nothing` `an_open_relay_through_us_is_found` |
//!
//! # Identity (X)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | X1 | A PROXY header is `off` or `required` for a listener, never guessed, and taken from `trusted_proxies` only; others are closed. | `an_untrusted_peer_is_closed_at_once_x1` `a_client_that_bypasses_haproxy_is_not_served` |
//! | X2 | Not a word before a whole valid header; 5 s for it. | `without_a_valid_header_there_is_no_word_x1_x2` |
//! | X3 | v1 begins with `PROXY `, ends with CRLF within 107 octets, has single spaces, addresses of the family it names and ports without leading zeros. What is said of UNKNOWN is ignored. | `rule_x3_canonical_v1_is_read` `rule_x3_v1_that_is_not_canonical_is_refused_at_once` `rule_x3_v1_has_107_octets_at_most` |
//! | X4 | v2 has its signature, 0x20 (LOCAL) or 0x21, a family of the specification and at most 4,096 octets. LOCAL, UNSPEC, datagrams and Unix sockets mean the socket's own addresses; what LOCAL carries is skipped. | `rule_x4_v2_addresses_are_read` `rule_x4_what_names_no_client_is_read_without_addresses` `rules_x4_and_x5_bad_v2_is_refused_at_once` |
//! | X5 | A length below that of the addresses is refused. Headers may come in pieces. What follows one belongs to the stream. | `rules_x4_and_x5_bad_v2_is_refused_at_once` `rule_x5_what_follows_a_header_is_not_touched` |
//! | X6 | UNIQUE_ID, AUTHORITY and SSL are kept, others skipped. A TLV running past the header, or a CRC32c that does not match, is refused. | `rule_x6_tlvs_are_kept_or_skipped` `rule_x6_a_tlv_running_past_the_header_is_refused_at_once` `rule_x6_the_checksum_is_verified` |
//! | X7 | The address so learned is the client for limits, networks, affinity, logs and the header we send; the TCP peer is logged as `via`. | `a_received_header_names_the_client_x7` `behind_haproxy_the_backend_sees_the_true_client` |
//! | X8 | We send one header per connection, before anything else, and no connection serves two clients. | `the_backend_learns_the_client_by_v1_and_v2_x8_x11` |
//! | X9 | Both addresses are of one family: mapped pairs become IPv4, mixed ones IPv6. | `rule_x9_families_are_made_one` |
//! | X10 | One write, and nothing behind it before the backend spoke: Postfix and Dovecot refuse a header in two segments. | `postfix_sees_the_client_with_proxy_v2` `opensmtpd_sees_the_client_with_proxy_v2` |
//! | X11 | At most 232 octets unless the pool says more: Exim takes no longer ones, Postfix none over 536. SSL, then AUTHORITY, then UNIQUE_ID are left out to stay below. | `rule_x11_tlvs_are_dropped_in_order_and_never_cut` `the_longest_header_fits` |
//! | X12 | Never v1 UNKNOWN or v2 UNSPEC, which Postfix and Haraka refuse. Our probes say v2 LOCAL, or v1 with the socket's addresses. | `rule_x12_probes_say_local_without_addresses` `local_probes_are_taken_by_every_server_with_proxy_v2` `version_1_probes_tell_the_real_addresses` |
//! | X13 | A header sent where none is expected is read as commands, and every reply is off by one: EHLO answered 500, 501, 502, 503 or 554 behind a header is a mismatch, and the backend does not serve. | `rule_x13_a_header_read_as_commands_is_a_mismatch` `a_header_to_a_postfix_that_expects_none_is_a_mismatch` |
//!
//! # Loops (M)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | M5 | A backend that is one of our listeners is a mistake of the configuration. A received UNIQUE_ID goes on unchanged, and a header with an id of this process is refused: the session came from here. | `addresses_that_meet_or_lead_back_to_us_are_refused` `a_received_unique_id_outlives_ours` `rule_m5_a_header_with_our_own_id_is_a_loop` |
//!
//! # Time and TCP (K)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | K3 | FIN goes on in its direction, behind every octet, and the other direction stays open: a client that closes behind its final dot still gets its 250. | `a_half_closed_client_still_gets_its_reply_k3` `the_250_comes_back_after_the_client_half_closed_behind_the_final_dot` |
//! | K4 | RST goes on as RST; a message broken off never looks finished. | `a_reset_of_the_client_is_told_apart_and_can_be_passed_on_k4` `a_client_that_resets_within_the_message_leaves_none` |
//! | K5 | After a last reply: shut down writing, read and drop up to 2 s or 64 KiB, close. A plain close with unread input is a reset that can take the reply along. | `a_client_that_keeps_pipelining_still_reads_the_421_k5` |
//! | K6 | NODELAY; keepalive after 60 s; user timeout 120 s, which bounds only what is not acknowledged, so that the 10 minutes a backend may think about the final dot stand. | `accepted_sockets_inherit_nodelay_keepalive_and_the_user_timeout` |
//! | K7 | At the end: stop accepting, let sessions run, cut the rest at the deadline. A passthrough session cannot be told, only waited for. | `sessions_that_are_left_at_the_deadline_are_cut_and_counted` |
//!
//! # Replies of our own (R)
//!
//! | condition | reply | then | shown by |
//! |---|---|---|---|
//! | no backend usable, the queue full or its time over | `421 4.3.2 <host> service not available, try again later` | close | `no_backend_at_all_is_a_proper_reply` `a_wait_in_the_queue_ends_with_a_reply` |
//! | shutting down, connection still in the accept queue | `421 4.3.2 <host> shutting down` | close | `replies_that_break_the_protocol_are_refused` |
//! | this client's limit | `421 4.7.0 <host> too many connections` | close | `one_client_has_so_many_sessions_and_no_more` |
//! | our limit | `421 4.3.2 <host> too many connections` | close | `a_listener_has_so_many_sessions_and_no_more` |
//! | network denied | `554 5.7.1 <host> access denied`, then `503 5.5.1` | QUIT, 5 s, or 5 commands | `a_denied_client_is_told_and_may_only_quit_s6` `a_pipelined_flood_gets_five_short_replies` |
//! | fifth command of such a dialogue | `421 4.7.0 <host> too many errors` | close | `a_pipelined_flood_gets_five_short_replies` |
//! | monitor, nothing ready | `421 4.3.2 <host> service not available, try again later` | close | `rule_r1_a_monitor_is_told_421_and_closed_when_nothing_is_ready` |
//! | early talker, where rejected | `554 5.5.0 <host> protocol synchronization` | close | `an_early_talker_is_rejected_where_asked_and_else_delivered_s14` |
//!
//! R1: 421 always closes. R2: the operator may word a reply, but not change its class
//! (`replies_that_break_the_protocol_are_refused`, `rule_r2_the_operator_may_word_the_denial`).

#[cfg(test)]
mod tests {
    use super::super::cited;

    #[test]
    fn every_test_named_here_exists() {
        cited::assert_all_exist(include_str!("rules.rs"));
    }
}
