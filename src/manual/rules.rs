//! The rules of SMTP and its neighbours that bind us.
//!
//! Each has an id, by which code and tests cite it ("rule S8"), and the tests that show it; a test
//! at the end of this file finds every one of them. Behaviour of named servers
//! was seen in a laboratory or is in their documents. Settled against doubt: the promises first, then these
//! rules.
//!
//! # Grammar (G)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | G1 | Verbs and keywords are read in any case; paths and parameters go on to the octet. RFC 5321 §2.4. | `rule_g1_verbs_are_read_in_any_case` `rule_g1_paths_are_kept_to_the_octet` `rule_g1_paths_and_parameters_go_on_to_the_octet` |
//! | G2 | A command line has at most 2,048 octets with its CRLF. A longer one is dropped up to its end and answered `500 5.5.2`, never cut short and executed; one without end is given up at 1 MiB. RFC 5321 §4.5.3.1.4. | `rule_g2_the_rest_of_an_overlong_line_is_never_executed_while_a_reply_is_awaited` `rules_g2_and_g3_limits_hold_at_the_octet` `rule_g2_an_overlong_line_is_dropped_as_it_comes` `a_line_without_end_ends_the_session` |
//! | G3 | Within AUTH a line has at most 12,288 octets; over it `500 5.5.6`, and the exchange is over. RFC 4954 §4. | `rules_g2_and_g3_limits_hold_at_the_octet` |
//! | G4 | A line of a message may be longer than the 1,000 octets of RFC 5321 §4.5.3.1.6, and goes on as it is. At least 100 recipients are taken. | `rule_g4_lines_of_a_message_may_be_longer_than_the_rfc_asks` `rule_p2_a_thousand_recipients_in_one_segment_are_answered_in_order` |
//! | G5 | A reply is lines of one code, 200 to 599; the last has SP or nothing behind the code. At most 4,096 octets a line, 128 lines, 64 KiB. Anything else ends the connection. RFC 5321 §4.2. LF alone ends a backend's line too: clients take it, and nothing of ours can make a backend echo one. | `rule_g5_what_is_not_a_reply_is_refused_at_its_first_wrong_octet` `limits_hold_at_the_octet` `a_verdict_once_reached_stays` |
//! | G6 | Any reply may have several lines, a greeting and a refusal too. | `the_forms_of_rfc_5321_are_read` `rule_s6_any_other_code_needs_the_whole_reply` `rule_g6_any_reply_of_a_backend_may_have_several_lines` |
//! | G7 | The code decides, an unknown one by its first digit; texts decide only where [`judge_greeting`](crate::smtp::judge_greeting) and the probe say so. 1yz and garbage are fatal. | `the_forms_of_rfc_5321_are_read` `garbage_is_named` `rule_g7_a_code_nobody_knows_goes_by_its_first_digit` |
//! | G9 | Each reply of ours has an enhanced code of its class, but 220, 354 and those to EHLO and HELO. RFC 2034 §4. | `rule_g9_each_of_our_replies_has_an_enhanced_code_of_its_class` |
//! | G10 | The host is the first word of our 220, 221 and 421: these are read by machines. | `rule_g10_the_host_is_the_first_word_of_220_221_and_421` |
//! | G11 | A backend's reply is written anew: octets but HT and printable ASCII become `?` (valid UTF-8 stays for a client that used SMTPUTF8), lines over 512 octets become several with the same enhanced code, each ends with CRLF. | `rule_g11_a_clean_reply_is_relayed_as_it_is` `rule_g11_no_octet_passes_that_could_be_another_line` `rule_g11_long_lines_are_split_behind_whole_characters` `rule_g11_a_backend_cannot_slip_octets_into_its_reply` |
//! | G12 | Only CRLF ends a command. A bare LF or CR is `500 5.5.2` and the end; LF can be tolerated, CR cannot. RFC 5321 §2.3.8. | `rule_g12_only_crlf_ends_a_line` `rule_g12_a_bare_lf_can_be_tolerated_and_a_bare_cr_cannot` `all_short_inputs_in_all_halves_give_the_lines_of_the_rules` `rule_g12_a_bare_line_end_in_a_command_ends_the_session` |
//! | G13 | Control octets in a command are `501 5.5.2`, a tab between words excepted. What is not UTF-8 is `500 5.5.2`; other octets over 127 are `501 5.5.4` in EHLO and HELO, `553 5.6.7` in MAIL and RCPT without SMTPUTF8. RFC 6531 §3.5. | `rule_g13_control_octets_are_refused` `rule_g13_octets_over_127_need_utf8_and_smtputf8` |
//! | G14 | An argument where none belongs, or none where one does, is `501 5.5.4`; those of NOOP and HELP are ignored. A path needs its brackets, and its end must be beyond dispute. Malformed or repeated parameters are `501 5.5.4`. | `rule_g14_arguments_stand_where_they_belong` `a_path_without_brackets_or_end_is_refused` `a_path_whose_end_could_be_disputed_is_refused` `rule_g14_malformed_or_repeated_parameters_are_501` |
//!
//! # Sessions (S)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | S6 | Only 220 is a good greeting, and it may have many lines. After our own 554 every command is answered 503 until QUIT; after 421 we close. | `rule_s6_a_denied_client_hears_503_until_it_quits` `rule_s6_any_other_code_needs_the_whole_reply` `rule_s6_every_other_greeting_fails` |
//! | S7 | A connection that is accepted proves nothing: Postfix at its process limit, or without a working smtpd, accepts and is silent. The greeting has its own timer, and its latency is exported. | `a_backend_that_does_not_greet_is_replaced_s7_s9` `postfix_at_its_process_limit_is_replaced_before_the_client_sees_anything` |
//! | S8 | Nothing reaches the client before a backend has greeted, so any number may be tried. The commit is the first whole line that begins with 220, not the last: postscreen's teaser must arrive as a teaser. After it, no other backend. | `rule_s8_the_first_whole_line_of_a_220_commits` `postscreen_teaser_reaches_the_client_before_the_final_greeting` |
//! | S9 | The next backend is tried after a refused or failed connect, an end, a reset, garbage or silence before the commit, and after a 4yz. When the backend knows the client, x.7.x and per-client limits are verdicts about that client and are relayed: shopping around would multiply limits and block-list look-ups. Otherwise every bad greeting is the backend's. | `rule_s9_real_greetings_are_judged_by_the_table` `a_greeting_that_is_no_refusal_is_never_relayed` |
//! | S12 | At most three backends, 3 s for each connect, 20 s in all: client libraries give up at about 30 s. | `at_most_three_backends_are_tried_s12` `all_attempts_together_have_one_deadline_s12` |
//! | S14 | Where SMTP ends here the greeting can be held back; who talks meanwhile is logged, or told 554 5.5.0 and closed. In passthrough what a client says before its greeting stays in the kernel until the commit; then postscreen can no longer tell that it was early, so `early_talker` can log it or answer 554 5.5.0. | `an_early_talker_is_rejected_where_asked_and_else_delivered_s14` `rule_s14_the_greeting_is_held_back_and_who_talks_meanwhile_is_found` `rule_s14_a_client_that_waits_is_greeted_and_a_drain_does_not_wait_for_that` `who_talks_before_a_late_greeting_is_found_s14` |
//!
//! # What is announced (E)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | E1 | Nothing is announced but the keywords we know: an unknown one could change what is counted as a reply or as payload. BINARYMIME, REQUIRETLS, PRDR and every X are stripped by not being known. | `rule_e1_nothing_is_announced_that_is_not_on_the_list` `what_real_servers_announce_is_read` `what_all_backends_have_is_announced_and_nothing_else_e1_e3` |
//! | E2 | Each EHLO of a session is told what is announced at that moment, and held to it. | `rule_e2_each_ehlo_is_told_what_is_announced_then_and_held_to_it` |
//! | E3 | PIPELINING, SIZE and LIMITS are ours, with the smallest limit of us and the backends; STARTTLS is ours where there is a certificate. 8BITMIME, SMTPUTF8 (only with 8BITMIME), ENHANCEDSTATUSCODES, DSN and CHUNKING are announced if every backend has them; of a backend never seen nothing is assumed. A parameter never announced is `555 5.5.4`; one that no backend takes now is `455 4.3.3`. SIZE is left out of MAIL to a backend that does not know it. | `rule_e3_what_is_announced_is_what_every_backend_has` `rule_e3_our_own_are_announced_whatever_the_backends_have` `rule_e3_smtputf8_needs_8bitmime` `rule_e3_a_parameter_never_announced_is_555` `rule_e3_what_no_backend_can_take_now_is_455` `size_is_not_said_to_a_backend_that_did_not_announce_it` `the_one_backend_that_has_what_is_needed_is_found_among_many_e3` `a_message_goes_to_a_backend_that_has_room_for_it_e3` `rule_e3_a_message_moves_to_a_backend_that_has_room_for_what_has_come` |
//! | E4 | The first line of our reply to EHLO is our name, and the whole of that to HELO; behind HELO no parameter is allowed. | `rule_e3_what_is_announced_is_what_every_backend_has` `rule_e4_helo_is_answered_with_our_name_alone` `rule_e4_after_helo_there_are_no_parameters` |
//!
//! # Commands (A, B, C)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | A2 | What AUTH carries is shown by no log and no print. | `rule_a2_credentials_are_not_printed` |
//! | B1 | EXPN, ETRN, ATRN, TURN, SEND, SOML, SAML and BURL are `502 5.5.1`; what is not a command of ours either is `500 5.5.2`. | `rule_b1_what_we_know_and_do_not_offer_is_told_apart` `rule_s3_and_s4_some_commands_are_answered_here_and_at_any_time` |
//! | B2 | VRFY is answered `252 2.5.2` and HELP `214 2.0.0` here. No queue is one backend's to flush, so ETRN and TURN are refused. | `rule_s3_and_s4_some_commands_are_answered_here_and_at_any_time` `rule_b1_what_we_know_and_do_not_offer_is_told_apart` |
//! | B3 | A line that begins with a command of another protocol, or with a name and a colon as in a header, ends the session. | `rule_b3_lines_of_other_protocols_end_the_session` `rule_b3_a_client_of_another_protocol_is_sent_away_at_its_first_line` |
//! | B4 | A session has 10 error points (wrong syntax, order or verb 1, a refused RCPT ½, a failed AUTH 2) and 100 junk points (NOOP, HELP, VRFY, RSET without a transaction, EHLO again); then `421 4.7.0`. A delivered message gives them back. | `rule_b4_the_budget_ends_at_the_point` `rule_b4_errors_add_up_and_junk_is_apart` `rule_b4_commands_that_lead_nowhere_are_junk_and_mistakes_are_errors` `a_delivered_message_forgives_what_was_refused_before_it_b4` `rule_b4_a_client_that_errs_too_often_is_sent_away` `rule_b4_what_is_refused_in_a_transaction_is_counted_too` |
//! | C1 | BDAT has a length of up to twenty digits, and maybe LAST. RFC 3030 §2. | `rule_c1_chunks_have_a_length_and_may_be_the_last` |
//! | C3 | BDAT whose length cannot be read, or whose line is too long, is `501 5.5.4` and the end: nobody knows where its chunk does. | `rule_c3_a_chunk_without_readable_length_ends_the_session` `rule_c3_an_overlong_bdat_line_ends_the_session` |
//!
//! # Transactions (D, F)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | D10 | SIZE over the limit is `552 5.3.4` at MAIL. RFC 1870 §6. | `rule_d10_a_size_over_the_limit_is_552_at_once` |
//! | F8 | A backend that lacks an extension whose parameter was used, or whose limit is below the size, is not chosen. | `rule_f8_a_backend_that_lacks_what_is_needed_is_told` |
//!
//! # Probes (P, T, H)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | P6 | Nothing follows EHLO, STARTTLS, DATA or any command of a probe in its flight: Postfix answers 554 and closes. | `rule_h1_each_depth_says_one_command_per_flight_and_quits` `rules_p1_and_p6_nothing_follows_data_in_its_flight` |
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
//! # Message data (D)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | D1 | The end of data is CRLF `.` CRLF and nothing else; the beginning counts as behind CRLF, so `.CRLF` at once is an empty message. RFC 5321 §4.1.1.4. | `rule_d1_only_crlf_dot_crlf_ends_a_message` `every_short_message_is_scanned_as_the_rules_say_in_any_chunks` |
//! | D2 | The wire form goes through, stuffing untouched. It is taken away to count SIZE and for BDAT, and put on only where BDAT becomes DATA. | `rule_d1_only_crlf_dot_crlf_ends_a_message` `rule_d2_the_size_of_a_message_leaves_out_stuffing_and_terminator` `clean_mail_is_put_out_as_one_range_for_each_input` `a_message_arrives_octet_for_octet_d2_d12` |
//! | D3 | Servers also end at LF `.` LF, LF `.` CRLF and CRLF `.` LF: Postfix before 3.9 and OpenSMTPD do. None of these is ever sent, nor CRLF `.` CR and CR `.` CRLF. | `rules_d3_d4_no_variant_of_the_end_smuggles_a_second_message` `messages_of_special_octets_are_scanned_as_the_rules_say_in_any_chunks` |
//! | D4 | `normalize`: LF without CR becomes CRLF, CR without LF becomes SP, a line of one dot without CRLF on both sides becomes a line of two, which the receiver reads as one. | `rules_d3_d4_no_variant_of_the_end_smuggles_a_second_message` `a_lone_dot_at_the_very_beginning_is_one_too` `held_octets_come_out_as_what_they_turn_out_to_be` `bare_line_feeds_become_line_ends_and_end_no_message_d1_d4` `rule_d4_a_smuggled_message_stays_one_message` |
//! | D5 | `reject`: the message is read to its true end and refused there, `550 5.5.2`; nothing behind the offence is sent, and never an end of data. So are chunks; `normalize` leaves these as they are, for nothing in them is an end. | `rule_d5_a_bare_line_end_is_refused_at_the_true_end_where_asked` `rule_d5_chunks_with_bare_line_ends_are_refused_where_asked_and_else_untouched` `rules_d3_d5_where_they_are_rejected_all_variants_are_refused_at_the_true_end` `the_first_offence_is_known_at_once_and_named` |
//! | D6 | To pass everything unchanged is what mode `passthrough` is for; the defence against smuggling is the backend's there. | `bulk_arrives_unchanged_through_pipes` |
//! | D7 | A message that failed early is still read to its true end, unsent. | `rules_d7_d10_a_muted_message_is_read_to_its_end_and_counted` |
//! | D8 | NUL goes on where line ends are normalized, never behind a dot that begins the line and stands alone, and is refused, `550 5.6.0`, where they are rejected. | `rule_d8_nul_goes_on_or_is_refused`, `rule_d8_a_dot_is_not_alone_before_nul` |
//! | D9 | What follows the end of data is the next command's and not touched. | `rule_d1_only_crlf_dot_crlf_ends_a_message` |
//! | D10 | Over the size limit nothing more is sent and the rest is read; each further chunk is answered 552 5.3.4; at twice the limit, or after a minute, the connection is closed. | `rule_d10_a_message_over_the_limit_is_read_to_its_end_and_refused` `rule_d10_a_message_far_over_the_limit_is_not_read_to_its_end` `rules_d7_d10_a_muted_message_is_read_to_its_end_and_counted` `rule_d10_over_the_limit_each_chunk_is_refused_and_consumed` `rule_d10_over_the_limit_each_chunk_is_told_552_and_its_backend_is_let_go` `rule_c2_an_absurd_number_is_not_waited_for` |
//! | D12 | Octets of eight bits go on as they are. | `rule_d1_only_crlf_dot_crlf_ends_a_message` |
//!
//! # BDAT (C)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | C1 | Exactly as many octets as announced, whatever they are; one reply each; `BDAT 0 LAST` is legal. They go on as they come, one chunk at a time. RFC 3030 §2. | `rule_c1_each_chunk_takes_its_octets_and_no_more` `octets_and_ends_do_not_depend_on_how_the_input_comes` `rule_c1_chunks_are_said_one_by_one_and_answered_one_by_one` `rule_c1_chunks_go_on_as_they_come_and_each_has_its_reply` `chunks_arrive_as_they_are_and_refused_ones_are_no_commands_c1_c2` `chunks_arrive_in_postfix_as_they_are_c1` `chunks_arrive_in_exim_as_they_are_c1` |
//! | C2 | The octets of a refused chunk are consumed too, or they were commands; beyond twice the size limit: 552 5.3.4 and close. | `rule_c2_a_refused_chunk_is_consumed_to_its_last_octet` `rule_c2_an_absurd_number_is_not_waited_for` `rule_c2_a_refused_chunk_is_consumed_and_never_read_as_commands` `rule_c2_an_absurd_chunk_is_552_and_the_end` `a_refused_chunk_is_not_executed_in_front_of_postfix_c2` `a_refused_chunk_is_not_executed_in_front_of_exim_c2` |
//! | C3 | A length that cannot be read is 501 5.5.4 and the end. | `rule_c3_a_length_that_cannot_be_read_ends_the_session` |
//! | C4 | DATA, MAIL and RCPT behind a chunk are out of sequence, 503 5.5.1; after a failed chunk all others fail until RSET or LAST, and its backend is said RSET. | `rule_c4_behind_a_chunk_only_chunks_are_in_order` `rule_c4_after_a_refused_chunk_all_fail_until_rset` `rule_c4_a_refused_chunk_ends_the_transaction_and_rset_keeps_its_connection` `rule_c4_data_mail_and_rcpt_are_out_of_sequence_once_a_chunk_came` `rule_c4_after_a_failed_chunk_all_fail_until_rset` `a_chunk_behind_the_last_is_out_of_sequence` |
//! | C5 | BINARYMIME is never announced, and so never in DATA. | `rule_e3_a_parameter_never_announced_is_555` |
//! | C6 | A message that comes by BDAT goes to backends with CHUNKING only: it is announced if all have it, and a backend that has lost it since is left for another without a strike. What came by BDAT goes on by DATA only if it ends with CRLF and has no bare CR, bare LF or NUL; else 554 5.6.3. A message without octets may. | `rule_e3_a_backend_that_lost_chunking_is_left_without_a_strike` `rule_c6_what_data_cannot_carry_is_refused_in_any_chunks` `unstuffing_undoes_stuffing_in_any_chunks` |
//! | C7 | What came by DATA could go on by BDAT, unstuffed. Sessions do not do that: DATA commits as cleanly. | `a_dot_at_the_beginning_of_a_line_is_doubled_and_taken_back` `messages_of_special_octets_are_scanned_as_the_rules_say_in_any_chunks` |
//!
//! # Transactions over backends (F, G, N, P, S)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | F1 | What fails before the commit octet moves to another backend, and the client sees nothing: connect to EHLO, MAIL, RCPT, DATA, half a message of which all is kept. Behind it nobody knows, so nothing is replayed and the client is told 451 4.4.2; the beginning of a 2yz is an acceptance. A 421 or x.3.x to the message moves it too, any other refusal is relayed. | `rule_f1_row_2_an_unanswered_command_moves_and_the_client_sees_nothing` `rule_f1_row_4_half_a_message_moves_with_its_copy` `rule_f1_row_4_without_a_copy_the_client_is_told_at_its_end` `rule_f1_row_5_after_the_commit_octet_nothing_is_replayed` `rule_f1_row_6_the_beginning_of_a_2yz_is_an_acceptance` `rule_f1_row_8_only_an_unwell_backend_is_exchanged_after_its_refusal` `no_message_is_lost_or_doubled_in_any_world` `a_backend_that_dies_before_the_commit_is_replaced_f1` `a_postfix_that_dies_within_the_message_is_not_missed_f1` `a_backend_that_is_unwell_at_the_dot_is_replaced_and_one_that_refuses_is_not_f1` |
//! | F2 | Without its end a message is none (RFC 5321 §4.1.1.4, §4.1.1.10): that is what makes it safe to move. So a connection is left by a reset where a message is unfinished. | `rule_f2_a_message_without_its_end_is_left_by_a_reset` `a_client_that_leaves_within_the_message_leaves_none_f11` `a_client_that_leaves_before_the_dot_leaves_no_message_f11` |
//! | F3 | A message in doubt has a line of its own in the log, a warning with digests of its envelope and content, which neither a switch nor the storm limit leaves out; it is counted at its listener and its backend. | `f3_a_message_in_doubt_is_a_warning_that_names_it_by_its_digests` `f3_a_message_in_doubt_has_its_line_whatever_is_switched_off_but_warnings` `neither_an_accepted_message_nor_one_in_doubt_is_ever_left_out` |
//! | F4 | In doubt, the client is told 451 4.4.2: never 2yz, which would lose the message, never 5yz, which would bounce it. | `rule_f1_row_5_after_the_commit_octet_nothing_is_replayed` `rule_f7_what_was_in_doubt_once_is_never_told_to_be_refused` `after_the_commit_it_is_in_doubt_and_sent_to_nobody_else_f3_f4` |
//! | F5 | The commit octet is the LF of the final `.CRLF`, or the last octet of the last chunk (the LF of `BDAT 0 LAST`). It is handed to the driver apart, as the end of what is to be written. | `rule_f5_the_last_octet_of_the_last_chunk_is_the_commit` `rule_f5_but_for_its_last_octet_a_last_chunk_is_not_committed` `rule_c1_an_empty_last_chunk_is_legal_and_its_line_end_commits` |
//! | F8 | What the client was told must come true again on the next backend, or the transaction fails with 451; refused recipients are not said again; DATA waits for all recipients then. Chunks that were answered are said again with the next one, as one, and nobody is told twice. | `rule_f8_a_recipient_that_is_refused_elsewhere_fails_the_transaction` `rule_f8_a_refused_recipient_is_not_said_again` `rule_f8_a_replay_says_the_chunks_before_with_the_open_one_and_tells_nobody_twice` `a_second_backend_that_refuses_a_recipient_ends_it_with_451_f8` `a_second_postfix_that_refuses_a_recipient_ends_it_with_451_f8` |
//! | F7 | Where the operator asks for it, a message in doubt is said to another backend, once, while its client waits and all of it is kept; then only an acceptance is told, for a refusal says nothing of the first copy. | `rule_f7_a_message_in_doubt_is_said_again_once_where_asked` `rule_f7_what_was_in_doubt_once_is_never_told_to_be_refused` `rule_f7_nobody_s_message_is_said_again_in_doubt` `rule_f7_a_replay_in_doubt_is_an_effect_of_its_own` `rule_f7_a_message_in_doubt_is_found_by_its_envelope_and_digest` `where_the_operator_asks_a_message_in_doubt_is_sent_again_f7` |
//! | F9 | The backend's 354 is relayed. Where the operator asks for it we say 354 once the recipients are answered, and ask the backend while the message comes: its refusal of DATA is the reply to the message. | `rule_f9_where_asked_we_say_354_ourselves` `rule_f9_a_refusal_of_data_is_the_reply_to_the_message` `rule_f9_without_a_recipient_nobody_is_told_354` `rule_f9_our_354_waits_for_the_recipients_and_a_judged_message_is_read_to_its_end` `with_buffer_first_a_refused_data_is_the_answer_to_the_dot_f9` |
//! | F10 | Two moves at most, each with a strike; none a minute after the end of the message. | `rule_f10_a_transaction_moves_twice_at_most` `a_message_is_not_moved_a_minute_after_its_end` |
//! | F11 | A client that leaves aborts its transaction, but one that was committed waits for its reply. | `rule_f11_a_client_that_leaves_aborts_but_for_the_committed` `rule_f11_a_client_that_is_gone_is_told_nothing_and_the_log_everything` |
//! | G8 | A reply that answers nothing is an alarm, and the connection is closed; so is a recipient that is accepted behind a refused MAIL. | `a_recipient_behind_a_refused_mail_is_a_backend_out_of_step` `rule_g8_a_reply_to_nothing_loses_the_connection` `rule_g8_more_than_was_asked_fails` |
//! | M6 | The line of a transaction has our session and the text of the last reply, with the backend's queue id. | `m6_the_line_joins_the_session_to_the_queue_id` `a_reply_of_many_lines_is_one_text_and_bounded` `rule_m6_a_transaction_that_was_accepted_can_be_told` |
//! | N1 | A kept connection bears nothing of a client, so whoever needs its backend next may have it: a pool whose connections carry an identity is none for this mode. It must be to that backend, have been told our present name in EHLO, and where a listener has a source address of its own, have been made for that listener. A reload with another name makes new connections; a changed `source` or `interface` holds for those that are made from then on, and the others end by their age. | `a_kept_connection_bears_the_name_it_was_told_n1` `mistakes_in_mode_smtp_are_all_found_at_once` |
//! | N2 | A connection is kept only in step: behind the reply to a message, a refused MAIL, or RSET. | `rule_n2_a_transaction_taken_back_is_reset_before_its_connection_is_kept` `each_planted_mistake_is_found` `sessions_use_one_connection_after_another_and_it_is_ended_with_quit_n2_n4` `fifty_messages_take_a_few_connections_n2_n4` `rule_n2_a_connection_with_more_to_say_is_not_kept` `a_full_backend_is_dialled_a_few_times_and_not_for_every_message_n1_n2` |
//! | N3 | A kept connection that turns out dead at its first command is replaced by a new one: no strike, no move. | `rule_n3_a_kept_connection_that_was_dead_costs_nobody_anything` `a_kept_connection_that_has_died_costs_nobody_anything_n3` `a_restart_between_messages_is_not_seen_n3` `postfix_that_ends_an_idle_connection_is_not_seen_n3` `a_connection_that_died_while_clients_queue_costs_none_of_them_its_turn_n3_n4` |
//! | N4 | So is one whose first command is answered 421 or 452: it has carried its share. What one carries is limited by us too, 100 messages, 10 s of idleness, 5 minutes of age by default, and nobody keeps it alive by talking. | `rule_n4_a_kept_connection_that_has_had_its_share_is_recycled` `a_connection_carries_so_many_messages_n4` `sessions_use_one_connection_after_another_and_it_is_ended_with_quit_n2_n4` `a_connection_grows_so_old_and_no_older_n4` `a_kept_connection_that_has_had_its_share_is_recycled_unseen_n4` `exims_421_after_so_many_messages_is_not_seen_n4` `opensmtpds_452_after_so_many_messages_is_not_seen_n4` |
//! | N5 | An idle connection occupies a process of its backend. Of one backend `max_idle` are kept, 12 by default and for all threads together, and never more than a quarter of its `max_connections`; which was used last is used first, so that the others grow old and end. Idle and busy ones together are at most `max_connections`. That is no limit by default: then there are as many busy ones as clients with an open transaction. | `no_more_idle_connections_are_kept_than_a_backend_can_spare_n5` `fifty_messages_take_a_few_connections_n2_n4` `one_place_serves_two_sessions_in_turn` |
//! | N6 | What a backend's accept queue has no place for is dropped, and asked again a second later: 6 places in OpenSMTPD, 21 in Exim. So at most `max_opening` connections to a backend are opened at a time (4); each counts until the backend has spoken, and for 100 ms at most, for one that is slow to greet has accepted. Who waits takes a kept connection if one comes back first. Behind a failure the weight grows slowly, and `min_idle` is filled one by one. | `rule_n6_so_many_are_opened_at_a_time_and_each_place_is_given_back` `who_waits_for_a_turn_takes_a_kept_connection_n6` `a_burst_into_opensmtpd_overflows_no_queue_n6` `a_burst_into_exim_overflows_no_queue_n6` |
//! | P1 | In a flight to a backend MAIL and RCPT may be followed by others; DATA is the last, and BDAT, RSET and EHLO go alone. RFC 2920 §3.1. | `rules_p1_and_p6_nothing_follows_data_in_its_flight` `rule_p8_a_group_goes_in_one_flight_where_the_backend_pipelines` `no_message_is_lost_or_doubled_in_any_world` |
//! | P2 | Replies are in order, whatever the pieces in which commands come; what can be answered is answered, and nothing that was read is dropped. RFC 2920 §3.2. | `rule_p2_replies_do_not_depend_on_how_commands_come` `rule_p2_a_thousand_recipients_in_one_segment_are_answered_in_order` `a_pipelined_group_is_answered_in_order_p2_p5_p10` `swaks_pipelines_through_us_p2` |
//! | P4 | What a client says behind a command that should end its group is taken in order: replies of ours cannot lose step. | `rule_p4_what_stands_behind_the_end_of_a_group_is_taken_in_order` |
//! | P5 | A backend that did not announce PIPELINING is said one command at a time. | `rule_p5_one_command_at_a_time_where_it_does_not` `no_message_is_lost_or_doubled_in_any_world` `a_group_is_answered_in_order_and_reaches_an_older_backend_one_by_one_p1_p5` |
//! | P8 | Others are said MAIL, RCPT and DATA in one flight, if the client said them so. BDAT waits until all before it is answered, also where it could go along: a commit in one flight with MAIL would leave in doubt every message whose backend turns out dead or silent, for one round trip. | `rule_p8_a_group_goes_in_one_flight_where_the_backend_pipelines` `rule_c1_chunks_go_on_as_they_come_and_each_has_its_reply` `no_message_is_lost_or_doubled_in_any_world` |
//! | P9 | A 354 when every recipient was refused is answered with a lone dot; the client is told 554. | `rule_p9_a_354_for_nobody_is_answered_with_a_lone_dot` |
//! | P10 | Replies belong to commands by their order, never by their text; one of ours waits for those of the backend before it. | `rule_p10_a_reply_of_ours_takes_its_place_behind_those_of_the_backend` `a_message_goes_through_and_what_follows_it_waits_for_its_reply` `each_planted_mistake_is_found` |
//! | D7 | A refusal before the end of the message is told at its end; an acceptance there is out of step: 451, and no replay. | `rule_d7_an_early_refusal_is_told_at_the_client_s_end` `rule_d7_an_acceptance_before_the_end_is_an_alarm_and_no_replay` |
//! | P3 | What a client says ahead of our replies is held, up to 64 KiB, and then not read on: the kernel's buffer is the bound, and nothing is dropped. So it is with 64 KiB of replies that it leaves; its backend is not read on either then. | `a_message_goes_through_and_what_follows_it_waits_for_its_reply` `what_is_said_far_ahead_waits_and_is_answered_p3` `a_client_that_does_not_read_stops_its_backend_too` |
//! | S1 | MAIL behind EHLO and once, RCPT behind MAIL, DATA behind RCPT; else 503, and nothing changes. DATA behind recipients that were all refused is 554 5.5.1. | `rule_s1_commands_in_the_wrong_order_are_503` `rule_p9_a_354_for_nobody_is_answered_with_a_lone_dot` `rule_b4_what_is_refused_in_a_transaction_is_counted_too` |
//! | S2 | EHLO and HELO take a transaction back; one that is refused changes nothing. A backend is said EHLO once: OpenSMTPD refuses a second, so RSET clears a connection. | `rule_s2_ehlo_takes_a_transaction_back_by_rset_and_a_refused_one_changes_nothing` |
//! | S3 | NOOP, HELP, VRFY, RSET and QUIT are legal at any time. RSET never closes; QUIT always does. | `rule_s3_and_s4_some_commands_are_answered_here_and_at_any_time` `rule_s3_rset_never_closes_and_quit_does_within_a_transaction_too` |
//! | S4 | NOOP, RSET, HELP, VRFY and QUIT are answered here; no backend hears of them. | `rule_s3_and_s4_some_commands_are_answered_here_and_at_any_time` |
//! | S5 | One recipient over the limit is 452 4.5.3; those before it stay. | `rule_s5_one_recipient_too_many_is_452` |
//! | S11 | A backend that greets with 5yz is no reason to refuse a message: MAIL is told 451, and the session goes on. | `without_a_backend_mail_is_put_off_and_the_session_goes_on_r` `a_421_before_the_commit_is_never_seen_s13` |
//! | S7 | A backend whose MAIL is unanswered for longer than usual can be left for another, once, as soon as there is a place and the pool's budget grants it: a strike and a move. Not when it has answered anything of the transaction. | `rule_s7_a_slow_mail_asks_until_it_is_granted_and_moves_then` `a_slow_mail_is_said_to_another_backend_where_that_is_granted` `a_slow_mail_that_is_not_granted_another_backend_has_the_rfc_s_patience` `what_a_backend_has_begun_to_answer_is_not_hedged` |
//! | S13 | A 421 inside a transaction is never relayed: another backend, or 451. Behind an accepted MAIL the rest of the transaction is told 451 too, up to RSET, MAIL or EHLO, and not 503: a client bounces recipients that are told 5yz. | `rule_s13_a_421_inside_a_transaction_is_never_relayed` `rule_s13_a_421_to_a_chunk_is_never_relayed` `rule_s13_behind_a_loss_each_recipient_is_told_451_and_none_503` `rule_s13_a_transaction_that_has_failed_tells_what_follows_why` `rule_s13_a_message_lost_within_a_chunk_is_451_at_its_end_and_so_is_what_follows` `a_421_before_the_commit_is_never_seen_s13` `rule_s13_a_new_transaction_forgets_why_the_last_one_failed` |
//! | B5 | Where `tarpit` is set, who has spent half of the error points hears of each further mistake that much later, up to 5 s, and so of what a backend refuses it; nothing it says is read meanwhile. A drain does not wait, nor any other session, and beyond 1,024 that are held back nobody is. Off by default. | `rule_b5_half_of_the_error_points_is_five` `rule_b5_behind_half_of_the_error_points_a_mistake_is_answered_later` `rule_b5_who_is_sent_away_hears_it_later_too` `rule_b5_refusals_of_a_backend_wait_for_each_other` `rule_b5_a_drain_does_not_wait_for_it_and_who_leaves_gives_the_place_back` `rule_b5_beyond_so_many_sessions_nobody_is_held_back` `rule_b5_there_are_so_many_places_and_each_is_given_back` `who_errs_too_often_is_answered_late_and_nobody_else_is_b5` `every_mistake_that_is_held_back_is_answered_in_its_turn_b5` |
//! | B6 | A client that says nothing is sent away, 421 4.4.2: after 5 minutes for a whole command, 3 for a piece of a message; after 10 without MAIL in all. Behind the first minute a message comes with 100 octets a second on average. Time in which it waits for us or its backend does not count. | `rule_b6_a_silent_client_is_sent_away_by_what_it_was_to_say` `rule_b6_a_command_in_pieces_has_no_more_time_than_a_whole_one` `rule_b6_ten_minutes_without_mail_end_the_session_however_busy` `rule_b6_a_message_comes_with_a_hundred_octets_a_second` `rule_b6_small_chunks_do_not_stretch_a_message` `a_backend_that_takes_no_more_of_a_message_is_not_its_client_s_fault` `rule_b6_a_session_that_was_given_up_within_a_message_is_over` `rule_b6_a_client_that_does_not_read_its_last_reply_is_not_waited_for` `a_client_that_is_silent_for_too_long_is_told_so_b6` |
//! | B7 | Memory is a function of the configuration, so there is no pressure to measure: `max_sessions`, and what the descriptors allow, bound the sessions, and one more is told 421 4.3.2; each has bounded buffers; copies of messages and long lists of recipients come out of `replay_memory`. Where that is used up, new sessions are as welcome as ever, a message streams on without a copy, and only a further recipient is put off, 452 4.3.1: no open transaction fails for it. | `without_room_new_sessions_are_refused_and_open_transactions_go_on_b7` `rule_f1_without_memory_left_a_message_streams_from_where_it_is` `recipients_are_counted_against_the_memory_of_all_and_refused_without_room` `an_idle_session_is_small` `what_a_transaction_holds_is_bounded` |
//! | K1 | A backend has 295 s for a reply, 115 for 354, 180 for a block and 595 for the reply to a message, unless its pool says otherwise: a little less than a client that keeps to the RFC has for us. | `rule_k1_times_are_the_pool_s_and_follow_what_is_awaited` `rule_k1_without_a_pool_s_word_a_backend_has_a_little_less_than_its_client` `a_silent_backend_is_left_in_its_time_k1` `rule_k1_a_backend_that_does_not_take_bdat_is_left_in_its_own_time` |
//! | K2 | Times are for one wait each: a client's begins when it has been answered. | `rule_k2_the_time_of_a_client_begins_when_it_is_answered` `rule_k2_a_reply_that_came_late_is_still_to_be_read` |
//! | K3 | A client that ends behind its message still hears the reply; one that ends within it aborts it. | `rule_k3_a_client_that_ends_behind_its_message_still_hears_the_reply` `a_client_that_ends_its_direction_after_the_dot_reads_the_reply_k3` `a_client_that_ends_its_direction_after_the_dot_reads_postfixs_reply_k3` |
//! | K7 | A drain ends a session behind its transaction, never in it. | `rule_k7_a_drain_waits_for_the_open_transaction` `rule_k7_a_drain_waits_for_a_chunk_to_be_consumed` `a_drain_ends_idle_sessions_at_once_and_others_behind_their_transaction_k7` |
//! | E5 | A backend is told our name in EHLO, not the client's: its connection serves many. | `a_message_arrives_unchanged_and_its_reply_is_the_backends_m1` `a_kept_connection_bears_the_name_it_was_told_n1` |
//! | E6 | Backends are said EHLO, also where the client said HELO, and nothing else when they refuse it. | `rule_e6_a_refused_ehlo_fails_and_helo_is_not_tried` `a_kept_connection_bears_the_name_it_was_told_n1` |
//!
//! # Replay (F)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | F1 | A message can be sent again while all of it is kept: up to `replay_max`, out of `replay_memory` for the whole process. Without room it streams on, is counted, and cannot. | `rule_f1_a_copy_is_kept_and_can_be_sent_again` `rule_f1_over_its_limit_a_message_streams_on_and_cannot_go_back` `rule_f1_without_memory_left_a_message_streams_from_where_it_is` `whatever_happens_each_octet_is_sent_once_and_in_order` |
//! | F6 | The final `.CRLF` is held back: the scanner never puts it out, and `.CR` not before the next octet shows that it is content. Before it is written, what the backend has said is heard, and the client must still be there. | `what_cannot_be_decided_yet_is_held_and_nothing_else` `clean_mail_is_put_out_as_one_range_for_each_input` `a_client_that_is_gone_before_the_commit_leaves_no_message_f6` |
//!
//! # Abuse (B)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | B6 | Behind its first minute a message comes with more than 100 octets a second on average, or its client is given up: 421 4.4.2. Sessions are limited for each IPv4 address and IPv6 /64. | `rule_b6_a_hundred_octets_a_second_are_asked_for_behind_the_first_minute` `one_client_has_so_many_sessions_and_no_more` `rule_b6_a_client_is_an_ipv4_address_or_an_ipv6_64` |
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
//! | X24 | XCLIENT, XFORWARD and PROXY of a client are unknown commands. | `rule_x24_what_tells_another_identity_is_unknown` |
//!
//! # Traces and loops (M)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | M1 | No 2yz to a message before its backend has said 2yz to it. | `no_message_is_lost_or_doubled_in_any_world` `sessions_keep_their_promises_whatever_happens` `every_acknowledged_message_is_in_exactly_one_backend_m1_m2` |
//! | M2 | A message that was answered 4yz or 5yz is not delivered later: what was to be said again is given up first. | `no_message_is_lost_or_doubled_in_any_world` `every_acknowledged_message_is_in_exactly_one_backend_m1_m2` |
//! | M3 | Nothing is added to a message and nothing taken from it but what D4 repairs. | `a_message_arrives_unchanged_and_its_reply_is_the_backends_m1` `a_message_arrives_octet_for_octet_d2_d12` |
//! | M5 | A backend address that is one of our listeners is a mistake of the configuration; an address of a name that is one, or no host's, is left out, and where no other is left the last good answer is kept. A received UNIQUE_ID goes on unchanged, and a header with an id of this process is refused: the session came from here. | `addresses_that_meet_or_lead_back_to_us_are_refused` `rule_m5_a_backend_at_an_address_of_this_host_is_refused` `rule_m5_bad_addresses_are_left_out_and_good_ones_used` `rule_m5_a_name_that_leads_back_to_us_holds_nothing_back` `a_received_unique_id_outlives_ours` `rule_m5_a_header_with_our_own_id_is_a_loop` |
//!
//! # Time and TCP (K)
//!
//! | id | rule | shown by |
//! |---|---|---|
//! | K1 | No octet of a message for 180 s ends the session: 421 4.4.2. RFC 5321 §4.5.3.2.5. | `rule_k_three_minutes_of_silence_end_even_a_fast_message` |
//! | K3 | FIN goes on in its direction, behind every octet, and the other direction stays open: a client that closes behind its final dot still gets its 250. | `a_half_closed_client_still_gets_its_reply_k3` `the_250_comes_back_after_the_client_half_closed_behind_the_final_dot` |
//! | K4 | RST goes on as RST; a message broken off never looks finished. | `a_reset_of_the_client_is_told_apart_and_can_be_passed_on_k4` `a_client_that_resets_within_the_message_leaves_none` `a_cut_session_leaves_no_whole_message_k4` `rule_f2_a_message_without_its_end_is_left_by_a_reset` |
//! | K5 | After a last reply: shut down writing, read and drop up to 2 s or 64 KiB, close. A plain close with unread input is a reset that can take the reply along. | `a_client_that_keeps_pipelining_still_reads_the_421_k5` `a_421_behind_a_flood_can_be_read_k5` |
//! | K6 | NODELAY; keepalive after 60 s, then 6 times 10 s; user timeout 120 s, which bounds only what is not acknowledged, so that the 10 minutes a backend may think about the final dot stand. A client's connection has them from its accept; one to a backend has NODELAY from its dial, and the others when it is ready for mail, kept or not, or when a relayed session has lasted 10 s. | `accepted_sockets_inherit_nodelay_keepalive_and_the_user_timeout` `a_lasting_connection_has_keepalive_and_a_user_timeout_k6` `connections_to_backends_are_kept_alive_from_their_first_transaction_k6` |
//! | K7 | At the end: stop accepting, let sessions run, cut the rest at the deadline. A passthrough session cannot be told, only waited for. | `sessions_that_are_left_at_the_deadline_are_cut_and_counted` |
//!
//! # Replies of our own (R)
//!
//! | condition | reply | then | shown by |
//! |---|---|---|---|
//! | no backend usable, the queue full or its time over | `421 4.3.2 <host> service not available, try again later` | close | `no_backend_at_all_is_a_proper_reply` `a_wait_in_the_queue_ends_with_a_reply` |
//! | shutting down, connection still in the accept queue | `421 4.3.2 <host> shutting down` | close | `a_connection_still_in_the_accept_queue_is_told_of_the_shutdown` |
//! | this client's limit | `421 4.7.0 <host> too many connections` | close | `one_client_has_so_many_sessions_and_no_more` |
//! | our limit | `421 4.3.2 <host> too many connections` | close | `a_listener_has_so_many_sessions_and_no_more` |
//! | network denied | `554 5.7.1 <host> access denied`, then `503 5.5.1` | QUIT, 5 s, or 5 commands | `a_denied_client_is_told_and_may_only_quit_s6` `a_pipelined_flood_gets_five_short_replies` |
//! | fifth command of such a dialogue | `421 4.7.0 <host> too many errors` | close | `a_pipelined_flood_gets_five_short_replies` |
//! | monitor, nothing ready | `421 4.3.2 <host> service not available, try again later` | close | `rule_r1_a_monitor_is_told_421_and_closed_when_nothing_is_ready` |
//! | early talker, where rejected | `554 5.5.0 <host> protocol synchronization` | close | `an_early_talker_is_rejected_where_asked_and_else_delivered_s14` |
//! | draining, at the next boundary | `421 4.3.2 <host> shutting down` | close | `rule_k7_a_drain_waits_for_the_open_transaction` |
//! | no backend for MAIL | `451 4.3.2` none eligible, `451 4.4.1` none answered | stay | `without_any_backend_each_command_gets_one_answer` `without_a_backend_mail_is_put_off_and_the_session_goes_on_r` |
//! | no backend that has what MAIL asks for | `455 4.3.3 parameter cannot be accommodated now` | stay | `rule_e3_what_no_backend_can_take_now_is_455` |
//! | backend lost, nothing to replay | `451 4.4.2 connection to the mail server lost, try again` | stay | `rule_f1_row_4_without_a_copy_the_client_is_told_at_its_end` `rule_s13_a_transaction_that_has_failed_tells_what_follows_why` |
//! | backend silent, nothing to replay | `451 4.4.2 the mail server did not answer in time, try again` | stay | `rule_k2_a_reply_that_came_late_is_still_to_be_read` |
//! | in doubt | `451 4.4.2 no answer to the message, try again` | stay | `rule_f1_row_5_after_the_commit_octet_nothing_is_replayed` |
//! | backend out of step | `451 4.5.0 protocol error of the mail server, try again` | stay | `rule_d7_an_acceptance_before_the_end_is_an_alarm_and_no_replay` |
//! | client silent | `421 4.4.2 <host> timeout exceeded` | close | `rule_b6_a_silent_client_is_sent_away_by_what_it_was_to_say` |
//! | message stalled or too slow | `421 4.4.2 <host> timeout` | close | `rule_b6_a_message_comes_with_a_hundred_octets_a_second` |
//! | too many mistakes | `421 4.7.0 <host> too many errors` | close | `rule_b4_a_client_that_errs_too_often_is_sent_away` |
//! | another protocol | `421 4.7.0 <host> this is SMTP` | close | `rule_b3_a_client_of_another_protocol_is_sent_away_at_its_first_line` |
//! | no memory for another recipient | `452 4.3.1 out of memory, try again later` | stay | `recipients_are_counted_against_the_memory_of_all_and_refused_without_room` |
//! | too many recipients | `452 4.5.3 too many recipients` | stay | `rule_s5_one_recipient_too_many_is_452` |
//! | message too big | `552 5.3.4 message too big` | stay; close at twice the limit or after a minute | `rule_d10_a_message_over_the_limit_is_read_to_its_end_and_refused` `rule_d10_a_message_far_over_the_limit_is_not_read_to_its_end` |
//! | bare CR, LF or NUL where rejected | `550 5.5.2`, `550 5.6.0` | stay | `rule_d5_a_bare_line_end_is_refused_at_the_true_end_where_asked` |
//! | wrong syntax, argument, order; not offered | `500 5.5.2`, `501 5.5.4`, `503 5.5.1`, `502 5.5.1` | stay | `rule_g14_arguments_stand_where_they_belong` `rule_s1_commands_in_the_wrong_order_are_503` `rule_b1_what_we_know_and_do_not_offer_is_told_apart` |
//! | bare line end in a command, BDAT without a length | `500 5.5.2`, `501 5.5.4` | close | `rule_g12_a_bare_line_end_in_a_command_ends_the_session` `rule_c3_a_length_that_cannot_be_read_ends_the_session` |
//! | parameter never announced | `555 5.5.4 parameter not recognized` | stay | `rule_e3_a_parameter_never_announced_is_555` |
//! | UTF-8 without SMTPUTF8 | `553 5.6.7 non-ASCII address without SMTPUTF8` | stay | `rule_g13_octets_over_127_need_utf8_and_smtputf8` |
//! | every recipient refused, then DATA | `554 5.5.1 no valid recipients` | stay | `rule_p5_one_command_at_a_time_where_it_does_not` |
//!
//! Where SMTP ends here, the replies are the constants of [`OwnReply`](crate::smtp::OwnReply).
//!
//! R1: 421 always closes, and so does what loses the framing
//! (`rule_r1_421_and_221_close_and_the_rest_where_framing_is_lost`). R2: the operator may word each
//! of them and change its codes, but not its class; 421, 220 and what is no failure stay the code they are
//! (`replies_that_break_the_protocol_are_refused`, `rule_r2_words_that_break_the_protocol_are_refused`,
//! `rule_r2_the_operator_may_word_the_denial`, `rule_r2_words_are_the_operator_s_where_chosen`,
//! `rule_r2_a_listener_says_its_replies_in_the_operator_s_words`,
//! `rule_r2_what_is_said_in_a_backend_s_place_is_worded_too`).

#[cfg(test)]
mod tests {
    use super::super::cited;

    #[test]
    fn every_test_named_here_exists() {
        cited::assert_all_exist(include_str!("rules.rs"));
    }
}
