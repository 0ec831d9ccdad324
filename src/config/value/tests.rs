//! Tables of what is understood and what is refused.

use super::*;

/// What `read` makes of each text: `Some` is the value's own text, `None` a refusal.
fn table<T: std::fmt::Debug>(
    read: impl Fn(&str) -> Result<T, Wrong>,
    show: impl Fn(&T) -> String,
    rows: &[(&str, Option<&str>)],
) {
    for (text, expected) in rows {
        let found = read(text);
        assert_eq!(
            found.as_ref().ok().map(&show).as_deref(),
            *expected,
            "{text:?}: {found:?}"
        );
        if let Err(wrong) = found {
            assert!(
                wrong.help.is_some_and(|help| !help.is_empty()),
                "{text:?} has no remedy"
            );
        }
    }
}

fn help<T: std::fmt::Debug>(found: Result<T, Wrong>) -> String {
    found.expect_err("refused").help.unwrap_or_default()
}

#[test]
fn durations_are_one_number_and_one_unit() {
    let rows = [
        ("250ms", Some("250ms")),
        ("5s", Some("5s")),
        ("60s", Some("1m")),
        ("10m", Some("10m")),
        ("1h", Some("1h")),
        ("1d", Some("24h")),
        ("0s", Some("0s")),
        ("007s", Some("7s")),
        ("1500ms", Some("1500ms")),
        ("", None),
        ("s", None),
        ("5", None),
        ("5 s", None),
        ("-5s", None),
        ("+5s", None),
        ("1.5s", None),
        ("1m30s", None),
        ("5S", None),
        ("5sec", None),
        ("٥s", None),
        ("18446744073709551616ms", None),
        ("18446744073709551615d", None),
    ];
    table(duration, |d| duration_text(*d), &rows);
    assert_eq!(
        help(duration("5")),
        "write \"5s\" for seconds or \"5ms\" for milliseconds"
    );
}

#[test]
fn a_duration_is_shown_as_it_can_be_read_again() {
    for millis in [
        0, 1, 999, 1_000, 1_001, 59_000, 60_000, 61_000, 3_600_000, 5_400_000,
    ] {
        let shown = duration_text(Duration::from_millis(millis));
        assert_eq!(
            duration(&shown),
            Ok(Duration::from_millis(millis)),
            "{shown}"
        );
    }
}

#[test]
fn rates_are_events_per_time() {
    let rows = [
        ("100/60s", Some("100 per 1m")),
        ("10/s", Some("10 per 1s")),
        ("1/ms", Some("1 per 1ms")),
        ("5000/h", Some("5000 per 1h")),
        ("1/d", Some("1 per 24h")),
        (" 10 / 5s ", Some("10 per 5s")),
        ("1000000/s", Some("1000000 per 1s")),
        ("1000001/s", None),
        ("0/s", None),
        ("10", None),
        ("10/", None),
        ("/s", None),
        ("10/0s", None),
        ("10/25h", None),
        ("10/s/s", None),
        ("-1/s", None),
    ];
    let show = |rate: &Rate| format!("{} per {}", rate.count, duration_text(rate.period));
    table(rate, show, &rows);
}

#[test]
fn percentages_need_their_sign() {
    let rows = [
        ("0%", Some("0")),
        ("1%", Some("1")),
        ("100%", Some("100")),
        ("50 %", Some("50")),
        ("101%", None),
        ("256%", None),
        ("-1%", None),
        ("0.5%", None),
        ("50", None),
        ("%", None),
        ("", None),
    ];
    table(percent, |p| p.value().to_string(), &rows);
}

#[test]
fn names_are_short_and_plain() {
    let longest = "x".repeat(64);
    let too_long = "x".repeat(65);
    let rows = [
        ("mx", Some("mx")),
        ("mx-1.site_a", Some("mx-1.site_a")),
        (longest.as_str(), Some(longest.as_str())),
        (too_long.as_str(), None),
        ("", None),
        ("a b", None),
        ("a/b", None),
        ("müller", None),
        ("a\n", None),
    ];
    table(name, ToString::to_string, &rows);
}

#[test]
fn listening_addresses_have_a_port_and_brackets() {
    let rows = [
        ("0.0.0.0:25", Some("0.0.0.0:25")),
        ("[::]:25", Some("[::]:25")),
        ("127.0.0.1:0", Some("127.0.0.1:0")),
        ("[::ffff:10.0.0.1]:25", None),
        ("224.0.0.1:25", None),
        ("255.255.255.255:25", None),
        ("0.0.0.0", None),
        ("::", None),
        (":25", None),
        ("*:25", None),
        ("25", None),
        ("localhost:25", None),
        ("10.0.0.1:65536", None),
        ("", None),
    ];
    table(bind, ToString::to_string, &rows);
    assert_eq!(help(bind("[::]")), "add the port: \"[::]:25\"");
    assert_eq!(
        help(bind("25")),
        "write [\"0.0.0.0:25\", \"[::]:25\"] for all addresses"
    );
    assert_eq!(help(bind("[::ffff:10.0.0.1]:25")), "write \"10.0.0.1:25\"");
}

#[test]
fn backend_addresses_are_literals_or_names() {
    let label = "x".repeat(63);
    let long_label = format!("{label}x:25");
    let longest = format!("{label}:25");
    let rows = [
        ("10.0.0.11:25", Some("10.0.0.11:25")),
        ("[2001:db8::1]:25", Some("[2001:db8::1]:25")),
        ("[::ffff:10.0.0.1]:25", Some("10.0.0.1:25")),
        ("mx.example:25", Some("mx.example:25")),
        ("mx.example.:25", Some("mx.example:25")),
        ("localhost:2525", Some("localhost:2525")),
        ("3com.example:25", Some("3com.example:25")),
        (longest.as_str(), Some(longest.as_str())),
        (long_label.as_str(), None),
        ("10.0.0.300:25", None),
        ("10.0.0.11", None),
        ("10.0.0.11:0", None),
        ("10.0.0.11:65536", None),
        ("10.0.0.11:smtp", None),
        ("0.0.0.0:25", None),
        ("[::]:25", None),
        ("239.1.1.1:25", None),
        ("2001:db8::1", None),
        ("mx.example", None),
        ("mx..example:25", None),
        ("-mx.example:25", None),
        ("mx example:25", None),
        ("http://mx.example:25", None),
        (":25", None),
        ("", None),
    ];
    table(backend_address, ToString::to_string, &rows);
    assert_eq!(
        help(backend_address("mx.example")),
        "write \"mx.example:25\""
    );
    assert_eq!(
        help(backend_address("2001:db8::1")),
        "write \"[2001:db8::1]:25\""
    );
}

#[test]
fn our_own_name_is_a_host_name_or_an_address_literal() {
    let rows = [
        ("mx.example.org", Some("mx.example.org")),
        ("vm", Some("vm")),
        ("my_host", Some("my_host")),
        ("[192.0.2.1]", Some("[192.0.2.1]")),
        ("[IPv6:2001:db8::1]", Some("[IPv6:2001:db8::1]")),
        ("[2001:db8::1]", None),
        ("192.0.2.1", None),
        ("(none)", None),
        ("a b", None),
        ("mx\r\nQUIT", None),
        ("", None),
    ];
    table(own_name, ToString::to_string, &rows);
}

#[test]
fn the_status_endpoint_is_asked_by_names_and_addresses_without_a_port() {
    table(
        asked_host,
        ToString::to_string,
        &[
            ("mon.example", Some("mon.example")),
            ("MON.Example", Some("mon.example")),
            ("192.0.2.7", Some("192.0.2.7")),
            ("2001:DB8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("mon.example:8025", None),
            ("http://mon.example", None),
            ("*", None),
            ("127.1", None),
        ],
    );
    assert_eq!(
        help(asked_host("mon.example:8025")),
        "write it without the port, which does not matter: \"mon.example\""
    );
}

#[test]
fn networks_name_a_network_or_one_address() {
    let rows = [
        ("10.0.0.0/8", Some("10.0.0.0/8")),
        ("10.0.0.1", Some("10.0.0.1/32")),
        ("2001:db8::/32", Some("2001:db8::/32")),
        ("::1", Some("::1/128")),
        ("0.0.0.0/0", Some("0.0.0.0/0")),
        ("10.0.0.1/8", None),
        ("10.0.0.0/33", None),
        ("10.0.0", None),
        ("example.org", None),
        ("", None),
    ];
    table(network, ToString::to_string, &rows);
    assert!(help(network("10.0.0.1/8")).contains("\"10.0.0.0/8\""));
}

#[test]
fn sources_interfaces_paths_and_permissions_are_checked() {
    let rows = [
        ("192.0.2.10", Some("192.0.2.10")),
        ("0.0.0.0", None),
        ("192.0.2.10:25", None),
    ];
    table(source, ToString::to_string, &rows);
    let rows = [
        ("eth0", Some("eth0")),
        ("eth0.100@x", Some("eth0.100@x")),
        ("0123456789abcdef", None),
        ("a b", None),
        ("a/b", None),
        ("", None),
    ];
    table(interface, ToString::to_string, &rows);
    let too_long = format!("/{}", "x".repeat(107));
    let rows = [
        ("/run/a.sock", Some("/run/a.sock")),
        ("a.sock", None),
        (too_long.as_str(), None),
    ];
    table(socket_path, |path| path.display().to_string(), &rows);
    let rows = [
        ("0660", Some("660")),
        ("660", Some("660")),
        ("0o600", Some("600")),
        ("0888", None),
        ("1777", None),
        ("66", None),
        ("+660", None),
        ("rw-rw----", None),
    ];
    table(permissions, |mode| format!("{mode:o}"), &rows);
}

#[test]
fn mailboxes_have_a_domain_and_no_brackets() {
    let rows = [
        ("postmaster@example.org", Some("postmaster@example.org")),
        ("a@[192.0.2.1]", Some("a@[192.0.2.1]")),
        ("<a@example.org>", None),
        ("a b@example.org", None),
        ("a@example.org\r\nDATA", None),
        ("postmaster", None),
        ("@example.org", None),
        ("a@", None),
    ];
    table(mailbox, ToString::to_string, &rows);
}

/// RFC 5321 §4.2 and §4.5.3.1.5, RFC 3463 §2.
#[test]
fn replies_have_their_class_an_enhanced_code_and_one_line() {
    let longest = format!("421 4.3.2 {}", "x".repeat(500));
    let too_long = format!("{longest}x");
    let rows = [
        (
            "421 4.3.2 {hostname} later",
            Some("421 4.3.2 mx.example later"),
        ),
        ("450 4.7.999", Some("450 4.7.999")),
        (
            "421 4.3.2 {} {Braces} stay {",
            Some("421 4.3.2 {} {Braces} stay {"),
        ),
        (longest.as_str(), Some(longest.as_str())),
        (too_long.as_str(), None),
        ("554 5.3.2 wrong class", None),
        ("421 5.3.2 disagree", None),
        ("421 no enhanced code", None),
        ("421 4.3 short", None),
        ("421 4.3.2.1 long", None),
        ("421 4.3.2000 long", None),
        ("421-4.3.2 more lines", None),
        ("4210 4.3.2 four digits", None),
        ("421", None),
        ("", None),
        ("421 4.3.2 a\rb", None),
        ("421 4.3.2 a\nb", None),
        ("421 4.3.2 a\0b", None),
        ("421 4.3.2 é", None),
        ("421 4.3.2 {host}", None),
    ];
    let read = |text: &str| reply(text, Class::Temporary, "mx.example");
    table(read, ToString::to_string, &rows);
    let denied = reply("554 5.7.1 no", Class::Permanent, "mx.example");
    assert_eq!(denied.as_deref(), Ok("554 5.7.1 no"));
    let hostname = "x".repeat(300);
    let twice = format!("421 4.3.2 {}", "{hostname}".repeat(2));
    assert!(
        reply(&twice, Class::Temporary, &hostname).is_err(),
        "the name counts too"
    );
}

#[test]
fn what_is_shown_of_a_long_text_is_short() {
    assert_eq!(shown("short"), "short");
    assert_eq!(shown(&"é".repeat(10_000)).chars().count(), 81);
}

#[test]
fn sizes_are_a_whole_number_and_a_unit() {
    let rows = [
        ("25MiB", Some("26214400")),
        ("10MB", Some("10000000")),
        ("512KiB", Some("524288")),
        ("1kB", Some("1000")),
        ("1 GiB", Some("1073741824")),
        ("2GB", Some("2000000000")),
        ("1TiB", Some("1099511627776")),
        ("3TB", Some("3000000000000")),
        ("0MiB", Some("0")),
        ("", None),
        ("MiB", None),
        ("25", None),
        ("25M", None),
        ("25mb", None),
        ("25KB", None),
        ("25MiBs", None),
        ("1.5MiB", None),
        ("-1MiB", None),
        ("+1MiB", None),
        ("1  MiB", None),
        ("٥MiB", None),
        ("16777216TiB", None),
        ("99999999999999999999MiB", None),
    ];
    table(size, ToString::to_string, &rows);
    assert_eq!(
        help(size("25m")),
        "write \"25MiB\" (powers of two) or \"25MB\" (powers of ten)"
    );
    assert_eq!(
        help(size("100")),
        "write 100 without quotes for octets, or \"100MiB\""
    );
}

#[test]
fn quotas_are_a_count_per_time_and_of_what() {
    let rows = [
        ("100/s", Some("100/s messages")),
        ("5000/h", Some("5000/h messages")),
        ("5000/1h messages", Some("5000/h messages")),
        ("20000/24h recipients", Some("20000/24h recipients")),
        ("20000/d recipients", Some("20000/24h recipients")),
        (" 7 / 2d  recipients ", Some("7/2d recipients")),
        ("1/31d", Some("1/31d messages")),
        ("1/1500ms", Some("1/1500ms messages")),
        ("1000000000/m", Some("1000000000/m messages")),
        ("1000000001/m", None),
        ("0/m", None),
        ("-1/m", None),
        ("1.5/m", None),
        ("100", None),
        ("100/", None),
        ("/s", None),
        ("100/ms", None),
        ("100/999ms", None),
        ("1/32d", None),
        ("1/fortnight", None),
        ("100/s/s", None),
        ("100/s mails", None),
        ("100/s recipients messages", None),
        ("100 recipients/s", None),
    ];
    table(quota, quota_text, &rows);
    assert_eq!(help(quota("1/s recipient")), "did you mean `recipients`?");
}

#[test]
fn sizes_and_quotas_are_shown_as_they_can_be_read_again() {
    for octets in [1_000, 1_024, 25 << 20, 10_000_000, 1 << 40] {
        assert_eq!(size(&size_text(octets)), Ok(octets));
    }
    // Without a unit they are written without quotes.
    assert_eq!([0, 1, 1_001].map(size_text), ["0", "1", "1001"]);
    for text in [
        "1/s messages",
        "2/11h recipients",
        "3/24h messages",
        "4/10d messages",
    ] {
        assert_eq!(quota(text).as_ref().map(quota_text).as_deref(), Ok(text));
    }
}

#[test]
fn rule_e1_only_extensions_that_we_can_keep_are_announced() {
    let rows = [
        ("SIZE", Some("SIZE")),
        ("8bitmime", Some("8BITMIME")),
        ("Smtputf8", Some("SMTPUTF8")),
        ("ENHANCEDSTATUSCODES", Some("ENHANCEDSTATUSCODES")),
        ("DSN", Some("DSN")),
        ("CHUNKING", Some("CHUNKING")),
        ("PIPELINING", Some("PIPELINING")),
        ("LIMITS", Some("LIMITS")),
        ("STARTTLS", None),
        ("AUTH", None),
        ("BINARYMIME", None),
        ("XCLIENT", None),
        ("SIZE 1000", None),
        ("", None),
    ];
    table(keyword, |keyword| keyword.name().to_owned(), &rows);
}
