//! For which hosts the status endpoint answers.

use super::*;

fn question(method: &str, target: &str, version: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/{version}\r\n{headers}\r\n")
}

async fn code(address: &Address, question: &str) -> (u16, String) {
    let answer = raw(address, question).await;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("{answer}")), answer)
}

#[test]
fn pages_are_shown_for_our_hosts_alone() {
    let shared = process_with(Mode::Passthrough, 1, |config| {
        config.admin = Some(Admin {
            bind: vec![loopback()],
            token_file: None,
            hosts: vec![Arc::from("mon.example")],
        });
    });
    beside(&shared, &loopback(), None, async |address| {
        for (headers, expected) in [
            ("host: 127.0.0.1:8025\r\n", 200),
            ("host: localhost\r\n", 200),
            ("host: [::1]:8025\r\n", 200),
            ("host: MON.example:443\r\n", 200),
            ("host: evil.example\r\n", 403),
            ("host: [::1].evil\r\n", 400),
            ("host: localhost.evil.example\r\n", 403),
            ("host: 127.0.0.1.evil\r\n", 403),
            ("host: 127.1\r\n", 403),
            ("host: me@localhost\r\n", 400),
            // It listens on loopback alone: nobody gets there by these.
            ("host: 192.0.2.1:8025\r\n", 403),
            ("host: lb.example\r\n", 403),
            ("host: localhost\r\nhost: localhost\r\n", 400),
            ("", 400),
        ] {
            for path in ["/", "/status", "/metrics", "/style.css"] {
                let (code, answer) = code(&address, &question("GET", path, "1.1", headers)).await;
                assert_eq!(code, expected, "{headers:?} {path}: {answer}");
                if expected == 403 {
                    assert!(answer.contains("[admin] hosts"), "the remedy: {answer}");
                }
            }
            for path in ["/healthz", "/readyz", "/readyz/mx"] {
                let (code, answer) = code(&address, &question("GET", path, "1.1", headers)).await;
                assert_eq!(code, 200, "{headers:?} {path}: {answer}");
            }
        }
    });
}

#[test]
fn an_absolute_target_and_old_http_are_understood() {
    beside(&process(1), &loopback(), None, async |address| {
        let local = "host: localhost\r\n";
        for (target, version, headers, expected) in [
            ("http://localhost/status", "1.1", local, 200),
            ("http://evil.example/status", "1.1", local, 400),
            (
                "http://localhost/status",
                "1.1",
                "host: evil.example\r\n",
                400,
            ),
            ("http://localhost/status", "1.1", "", 400),
            // No browser asks so, and old checks do.
            ("/status", "1.0", "", 200),
            ("/status", "1.0", "host: evil.example\r\n", 403),
            ("/healthz", "1.0", "", 200),
        ] {
            let (code, answer) = code(&address, &question("GET", target, version, headers)).await;
            assert_eq!(code, expected, "{target} {version} {headers:?}: {answer}");
        }
    });
}

#[test]
fn an_endpoint_on_another_address_is_asked_by_any_address_and_by_our_name() {
    let everywhere = AdminBind::Tcp(SocketAddr::from(([0, 0, 0, 0], 0)));
    beside(&process(1), &everywhere, None, async |address| {
        for (host, expected) in [
            ("192.0.2.1:8025", 200),
            ("[2001:db8::1]", 200),
            ("LB.example:8025", 200),
            ("localhost", 200),
            ("evil.example", 403),
        ] {
            let headers = format!("host: {host}\r\n");
            let (code, answer) = code(&address, &question("GET", "/status", "1.1", &headers)).await;
            assert_eq!(code, expected, "{host}: {answer}");
        }
    });
}

#[test]
fn a_unix_socket_is_asked_for_any_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin");
    let bind = AdminBind::Unix {
        path: path.clone(),
        mode: 0o600,
        group: None,
    };
    beside(&process(1), &bind, None, async |_| {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let question = question("GET", "/status", "1.1", "host: anything.example\r\n");
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn each_pool_says_whether_it_can_take_mail() {
    let shared = process_with(Mode::Passthrough, 2, |config| {
        config
            .pools
            .insert(Arc::from("empty"), Pool::for_host("lb.example"));
    });
    let draining = Arc::clone(&shared);
    let states: Vec<_> = shared.registry.backends();
    beside(&shared, &loopback(), None, async move |address| {
        let client = client(&address, None);
        let ready = async |path: &str| {
            let answer = ask(&client, Method::GET, path, "").await;
            (answer.status.as_u16(), text(&answer))
        };
        assert_eq!(ready("/readyz/mx").await, (200, "ready\n".to_owned()));
        let (code, said) = ready("/readyz/empty").await;
        assert_eq!(
            (code, said.contains("it has no backend")),
            (503, true),
            "{said}"
        );
        let (code, said) = ready("/readyz/none").await;
        assert_eq!(
            (code, said.contains("no pool named")),
            (404, true),
            "{said}"
        );
        assert_eq!(ready("/readyz/mx/more").await.0, 404);
        for (state, admin) in states.iter().zip([AdminState::Drain, AdminState::Maint]) {
            state.set_admin(admin, Arc::from("test"), Instant::now());
        }
        let (code, said) = ready("/readyz/mx").await;
        let expected = "not ready\npool \"mx\" cannot take mail: 1 drain, 1 maint\n";
        assert_eq!((code, said.as_str()), (503, expected));
        states[0].set_admin(AdminState::Ready, Arc::from("test"), Instant::now());
        assert_eq!(ready("/readyz/mx").await.0, 200);
        draining.start_draining();
        let (code, said) = ready("/readyz/mx").await;
        assert_eq!((code, said.contains("draining")), (503, true), "{said}");
        let posted = ask(&client, Method::POST, "/readyz/mx", "").await;
        assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    });
}
