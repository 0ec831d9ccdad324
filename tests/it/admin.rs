//! The status endpoint over real sockets: what is shown, and who may change what.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::{Method, StatusCode};
use posthouse::admin::client::{Address, Answer, Client, ClientError};
use posthouse::admin::views::{BackendChanged, Refusal, Reload, Status};
use posthouse::admin::{AdminListener, Timeouts, Token, serve};
use posthouse::balance::{AdminState, KeptClosed, MoveCause};
use posthouse::config::Config;
use posthouse::config::model::{
    Admin, AdminBind, Backend, BackendAddress, Listener, Mode, Pool, Quota, QuotaUnit,
};
use posthouse::control::{Handle, StartOptions};
use posthouse::metrics::TransactionOutcome;
use posthouse::smtp::Reservation;
use posthouse::snapshot::{Registry, Resolved, Shared, build};
use posthouse::telemetry;
use posthouse::types::Generation;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{prometheus, whole};

mod bounds;
mod hosts;
mod words;

const TOKEN: &str = "s3cret";

/// A process that serves nothing, with one listener, and a pool of so many backends.
fn process(backends: usize) -> Arc<Shared> {
    process_in(Mode::Passthrough, backends)
}

/// The same with the listener in this mode.
fn process_in(mode: Mode, backends: usize) -> Arc<Shared> {
    process_with(mode, backends, |_| ())
}

/// The same with a configuration that `change` has changed.
fn process_with(mode: Mode, backends: usize, change: impl FnOnce(&mut Config)) -> Arc<Shared> {
    let mut config = Config::for_host("lb.example");
    let mut pool = Pool::for_host("lb.example");
    for number in 0..backends {
        let address = SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 25));
        let backend = Backend::at(BackendAddress::Literal(address));
        pool.backends
            .insert(Arc::from(format!("mx{number}")), backend);
    }
    config.pools.insert(Arc::from("mx"), pool);
    let mut listener = Listener::new(
        vec![SocketAddr::from(([127, 0, 0, 1], 25))],
        "mx",
        "lb.example",
    );
    listener.mode = mode;
    config.listeners.insert(Arc::from("in"), listener);
    change(&mut config);
    let now = Instant::now();
    let registry = Registry::new(2);
    let first = build(
        Arc::new(config),
        &Resolved::default(),
        &registry,
        Generation(1),
        now,
    );
    for view in first.pools() {
        view.pool.install(now);
    }
    Shared::new(
        first,
        registry,
        2,
        telemetry::silent(),
        100,
        1024,
        (now, SystemTime::now()),
    )
}

/// Runs `test` beside an endpoint of `shared`.
fn beside<F: Future<Output = ()>>(
    shared: &Arc<Shared>,
    bind: &AdminBind,
    token: Option<Token>,
    test: impl FnOnce(Address) -> F,
) {
    beside_with(Timeouts::default(), shared, bind, token, test);
}

/// The same beside an endpoint with so much timeouts.
fn beside_with<F: Future<Output = ()>>(
    timeouts: Timeouts,
    shared: &Arc<Shared>,
    bind: &AdminBind,
    token: Option<Token>,
    test: impl FnOnce(Address) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = AdminListener::bind(bind).unwrap();
    let address = match bind {
        AdminBind::Tcp(_) => Address::Tcp(listener.address().unwrap().to_string()),
        AdminBind::Unix { path, .. } => Address::Unix(path.clone()),
    };
    let handle = Handle::detached(Arc::clone(shared));
    runtime.block_on(async {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let served = serve(listener, token, handle, timeouts, stopped);
        let tested = async {
            test(address).await;
            drop(stop);
        };
        let (served, ()) = tokio::join!(served, tested);
        served.unwrap();
    });
}

fn loopback() -> AdminBind {
    AdminBind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn token_in(folder: &Path) -> Token {
    let path = folder.join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    Token::from_file(&path).unwrap()
}

fn client(address: &Address, token: Option<&str>) -> Client {
    Client {
        address: address.clone(),
        token: token.map(str::to_owned),
    }
}

async fn ask(client: &Client, method: Method, path: &str, body: &str) -> Answer {
    let body = (!body.is_empty()).then(|| body.as_bytes().to_vec());
    client.ask(method, path, body).await.unwrap()
}

async fn status(client: &Client) -> Status {
    serde_json::from_slice(&ask(client, Method::GET, "/status", "").await.body).unwrap()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[test]
fn everything_can_be_read_without_a_token() {
    let shared = process(3);
    shared.workers[1].sessions.add(4);
    let taken = (0..4).filter(|_| shared.session_places.take(100)).count();
    assert_eq!(taken, 4);
    let before = Arc::clone(&shared);
    beside(&shared, &loopback(), None, async move |address| {
        let client = client(&address, None);
        let alive = ask(&client, Method::GET, "/healthz", "").await;
        assert_eq!(
            (alive.status, text(&alive).as_str()),
            (StatusCode::OK, "alive\n")
        );
        assert_eq!(
            ask(&client, Method::GET, "/readyz", "").await.status,
            StatusCode::OK
        );

        let status = status(&client).await;
        assert!(status.ready && status.reasons.is_empty());
        assert_eq!(
            (status.hostname.as_str(), status.generation),
            ("lb.example", 1)
        );
        assert_eq!(
            (status.limits.sessions, status.limits.sessions_max),
            (4, 100)
        );
        assert!(status.limits.descriptors.unwrap() > 3);
        assert_eq!(status.listeners[0].pool, "mx");
        let backends = &status.pools[0].tiers[0].backends;
        assert_eq!(backends.len(), 3);
        assert_eq!(
            (backends[0].name.as_str(), backends[0].address.as_str()),
            ("mx0", "10.0.0.0:25")
        );
        assert_eq!(
            (backends[0].admin.as_str(), backends[0].health.as_str()),
            ("ready", "unknown")
        );
        assert_eq!(status.workers.len(), before.workers.len());

        let series =
            prometheus::check(&text(&ask(&client, Method::GET, "/metrics", "").await)).unwrap();
        assert_eq!(series.get("posthouse_ready{}"), Some(&1.0));
        assert_eq!(
            series.get("posthouse_worker_sessions{worker=1}"),
            Some(&4.0)
        );
        let state =
            "posthouse_backend_state{pool=mx,backend=mx2,address=10.0.0.2:25,state=unknown}";
        assert_eq!(series.get(state), Some(&1.0));

        let page = text(&ask(&client, Method::GET, "/", "").await);
        assert!(page.contains("10.0.0.2:25") && page.contains("lb.example"));
        let head = ask(&client, Method::HEAD, "/status", "").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    });
}

/// Two workers count mail of the first listener and of the first backend.
fn count_mail(shared: &Shared) {
    let snapshot = shared.current.load();
    let view = snapshot.listeners().next().unwrap();
    let member = &snapshot.pools().next().unwrap().pool.members()[0];
    for worker in 0..2 {
        let mail = &view.state.counters.of(worker).mail;
        mail.outcomes[TransactionOutcome::Accepted.index()].add(20);
        mail.outcomes[TransactionOutcome::InDoubt.index()].inc();
        mail.recipients_accepted.add(30);
        mail.recipients_refused.add(3);
        mail.octets.add(1_000_000);
        let totals = &member.settings.state.totals.of(worker).mail;
        totals.idle.add(2);
        totals.transactions.add(21);
        totals.accepted.add(20);
        totals.in_doubt.inc();
        totals.dialled.add(3);
        totals.reused.add(18);
        totals.closed[KeptClosed::Age.index()].inc();
        totals.moves[MoveCause::Silent.index()].add(4);
        shared.workers[worker].kept_idle.add(2);
        shared.workers[worker].leased.add(5);
    }
}

#[test]
fn mail_is_shown_where_a_listener_in_smtp_mode_leads() {
    let shared = process_in(Mode::Smtp, 2);
    count_mail(&shared);
    let most = shared.replay_memory.max();
    let mut reservation = Reservation::new(&shared.replay_memory);
    assert!(reservation.grow(4096));
    beside(&shared, &loopback(), None, async |address| {
        let client = client(&address, None);
        let status = status(&client).await;
        assert_eq!(status.listeners[0].mode, "smtp");
        let mail = status.listeners[0].mail.as_ref().unwrap();
        assert_eq!(mail.transactions["accepted"], 40);
        assert_eq!(mail.transactions["in-doubt"], 2);
        assert_eq!(mail.transactions.len(), 2, "only what happened");
        assert_eq!((mail.recipients_accepted, mail.recipients_refused), (60, 6));
        assert_eq!(mail.message_bytes, 2_000_000);
        let backends = &status.pools[0].tiers[0].backends;
        let mail = backends[0].mail.as_ref().unwrap();
        assert_eq!((mail.kept_idle, mail.transactions), (4, 42));
        assert_eq!((mail.accepted, mail.in_doubt), (40, 2));
        assert_eq!((mail.dialled, mail.reused), (6, 36));
        assert_eq!(mail.kept_closed, [("age".to_owned(), 2)].into());
        assert_eq!(mail.moved, [("silent".to_owned(), 8)].into());
        let other = backends[1].mail.as_ref().unwrap();
        assert_eq!((other.transactions, other.moved.len()), (0, 0));
        assert_eq!(status.limits.replay_bytes, Some(4096));
        assert_eq!(status.limits.replay_bytes_max, Some(most));
        assert_eq!(
            (status.workers[1].kept_idle, status.workers[1].leased),
            (2, 5)
        );

        let series =
            prometheus::check(&text(&ask(&client, Method::GET, "/metrics", "").await)).unwrap();
        for (key, value) in [
            (
                "posthouse_transactions_total{listener=in,outcome=accepted}",
                40.0,
            ),
            ("posthouse_replay_memory_bytes{}", 4096.0),
            ("posthouse_worker_leased{worker=1}", 5.0),
            (
                "posthouse_backend_mail_connections_total{pool=mx,backend=mx0,address=10.0.0.0:25,connection=kept}",
                36.0,
            ),
            (
                "posthouse_backend_messages_total{pool=mx,backend=mx1,address=10.0.0.1:25}",
                0.0,
            ),
        ] {
            assert_eq!(series.get(key), Some(&value), "{key}");
        }
        let page = text(&ask(&client, Method::GET, "/", "").await);
        assert!(page.contains("<h2>Mail</h2>") && page.contains("replay memory 0.0 of 256 MiB"));
    });
}

#[test]
fn a_backend_whose_quota_is_used_up_is_full_on_every_page() {
    let shared = process_with(Mode::Smtp, 2, |config| {
        let pool = config.pools.get_mut("mx").unwrap();
        let backend = pool.backends.get_mut("mx0").unwrap();
        backend.quota = [(2, 3_600), (9, 86_400)]
            .map(|(count, period)| Quota {
                count,
                period: Duration::from_secs(period),
                unit: QuotaUnit::Messages,
            })
            .to_vec();
    });
    let snapshot = shared.current.load_full();
    let mx = snapshot.pool_named("mx").unwrap();
    let member = mx.pool.members().iter();
    let member = member.clone().find(|of| &*of.settings.name == "mx0");
    let member = member.unwrap();
    let spend = || {
        let spent = mx.pool.spend(member, 1, Instant::now());
        spent.unwrap().unwrap().keep(1, Instant::now());
    };
    let state = |state: &str| {
        format!("posthouse_backend_state{{pool=mx,backend=mx0,address=10.0.0.0:25,state={state}}}")
    };
    beside(&shared, &loopback(), None, async |address| {
        let client = client(&address, None);
        spend();
        let before = status(&client).await;
        assert_eq!(before.pools[0].tiers[0].backends[0].state, "unknown");
        spend();
        let after = status(&client).await;
        let [full, other] = &after.pools[0].tiers[0].backends[..] else {
            panic!("{after:?}");
        };
        assert_eq!((&*full.state, &*full.health), ("full", "unknown"));
        assert_eq!(full.cause.origin, "quota");
        let of = "2 of 2 messages in 1 hour";
        assert_eq!(full.cause.text.as_deref(), Some(of));
        assert_eq!((&*other.state, &*other.cause.origin), ("unknown", "start"));
        let series =
            prometheus::check(&text(&ask(&client, Method::GET, "/metrics", "").await)).unwrap();
        let quota = |what, window| {
            let labels = format!("pool=mx,backend=mx0,unit=messages,window={window}");
            format!("posthouse_backend_quota_{what}{{{labels}}}")
        };
        for (key, value) in [
            (state("full"), 1.0),
            (state("unknown"), 0.0),
            (quota("used", "1h"), 2.0),
            (quota("limit", "1h"), 2.0),
            (quota("used", "24h"), 2.0),
            (quota("limit", "24h"), 9.0),
        ] {
            assert_eq!(series.get(&key), Some(&value), "{key}");
        }
        let page = text(&ask(&client, Method::GET, "/", "").await);
        assert!(
            page.contains("<td class=\"state full\">full (quota)<"),
            "{page}"
        );
        member
            .settings
            .state
            .set_admin(AdminState::Drain, "op".into(), Instant::now());
        let drained = status(&client).await;
        assert_eq!(drained.pools[0].tiers[0].backends[0].state, "drain");
    });
}

#[test]
fn nothing_is_said_of_mail_where_there_was_none_and_what_was_is_kept() {
    let shared = process(1);
    let before = Arc::clone(&shared);
    beside(&shared, &loopback(), None, async move |address| {
        let client = client(&address, None);
        let quiet = status(&client).await;
        assert_eq!(quiet.listeners[0].mail, None);
        assert_eq!(quiet.pools[0].tiers[0].backends[0].mail, None);
        let page = text(&ask(&client, Method::GET, "/metrics", "").await);
        assert!(!page.contains("posthouse_transactions_total{"));
        assert!(!page.contains("posthouse_backend_messages_total{"));
        // An earlier generation had the listener in the other mode.
        count_mail(&before);
        let late = status(&client).await;
        assert!(late.listeners[0].mail.is_some());
        assert!(late.pools[0].tiers[0].backends[0].mail.is_some());
    });
}

#[test]
fn a_wrong_path_or_method_is_said() {
    beside(&process(1), &loopback(), None, async |address| {
        let client = client(&address, None);
        for path in [
            "/nothing",
            "/status/x",
            "/pools/mx",
            "/pools/mx/backends/a/b",
            "//",
        ] {
            let answer = ask(&client, Method::GET, path, "").await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
        for (method, path) in [
            (Method::POST, "/status"),
            (Method::DELETE, "/metrics"),
            (Method::GET, "/reload"),
            (Method::GET, "/pools/mx/backends/mx0"),
            (Method::PUT, "/pools/mx/failback"),
        ] {
            let answer = ask(&client, method, path, "").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap();
            assert!(refusal.remedy.starts_with("use "), "{refusal:?}");
        }
        let raw = raw(&address, "POST /status HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(
            raw.to_ascii_lowercase()
                .contains("\r\nallow: get, head\r\n"),
            "{raw}"
        );
    });
}

#[test]
fn a_change_over_tcp_needs_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let shared = process(2);
    let put = "/pools/mx/backends/mx1";
    let drain = r#"{"state":"drain"}"#;
    beside(&shared, &loopback(), None, async move |address| {
        let refused = ask(&client(&address, Some(TOKEN)), Method::PUT, put, drain).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(text(&refused).contains("token_file"), "the remedy");
    });
    beside(
        &shared,
        &loopback(),
        Some(token_in(folder.path())),
        async move |address| {
            for wrong in [None, Some("s3cre"), Some("s3cret2")] {
                let refused = ask(&client(&address, wrong), Method::PUT, put, drain).await;
                assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
                let refused = ask(&client(&address, wrong), Method::POST, "/reload", "").await;
                assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
            }
            let client = client(&address, Some(TOKEN));
            assert_eq!(
                status(&client).await.pools[0].tiers[0].backends[1].state,
                "unknown"
            );

            let changed = ask(&client, Method::PUT, put, drain).await;
            assert_eq!(changed.status, StatusCode::OK, "{}", text(&changed));
            let changed: BackendChanged = serde_json::from_slice(&changed.body).unwrap();
            assert_eq!(
                (changed.pool.as_str(), changed.backends[0].admin.as_str()),
                ("mx", "drain")
            );
            let shown = status(&client).await.pools[0].tiers[0].backends[1].clone();
            assert_eq!(shown.state, "drain");
            assert_eq!(shown.cause.who.as_deref(), Some("127.0.0.1"));
            assert_eq!(shown.cause.words, "set by 127.0.0.1");
            assert_eq!(shown.admin_mark.unwrap().by, "127.0.0.1");
            let ready = r#"{"state":"ready"}"#;
            let changed = ask(&client, Method::PUT, put, ready).await;
            assert_eq!(changed.status, StatusCode::OK, "{}", text(&changed));
            let shown = status(&client).await.pools[0].tiers[0].backends[1].clone();
            assert_eq!((shown.admin_mark, shown.cause.who), (None, None));
        },
    );
}

#[test]
fn a_weight_is_set_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let put = "/pools/mx/backends/mx0";
    beside(
        &process(1),
        &loopback(),
        Some(token_in(folder.path())),
        async move |address| {
            let client = client(&address, Some(TOKEN));
            let weight = async |body: &str| {
                let answer = ask(&client, Method::PUT, put, body).await;
                let changed: BackendChanged = serde_json::from_slice(&answer.body).unwrap();
                changed.backends[0].weight_override
            };
            assert_eq!(weight(r#"{"weight":7}"#).await, Some(7));
            assert_eq!(weight(r#"{"state":"drain"}"#).await, Some(7));
            assert_eq!(weight(r#"{"weight":null}"#).await, None);
        },
    );
}

#[test]
fn what_does_not_exist_or_is_no_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    beside(
        &process(1),
        &loopback(),
        Some(token_in(folder.path())),
        async move |address| {
            let client = client(&address, Some(TOKEN));
            let long = format!("{{\"state\":\"{}\"}}", "x".repeat(70_000));
            for (path, body, expected) in [
                (
                    "/pools/no/backends/mx0",
                    r#"{"state":"drain"}"#,
                    StatusCode::NOT_FOUND,
                ),
                (
                    "/pools/mx/backends/no",
                    r#"{"state":"drain"}"#,
                    StatusCode::NOT_FOUND,
                ),
                (
                    "/pools/mx/backends/mx0",
                    r#"{"state":"up"}"#,
                    StatusCode::BAD_REQUEST,
                ),
                ("/pools/mx/backends/mx0", "{}", StatusCode::BAD_REQUEST),
                ("/pools/mx/backends/mx0", "", StatusCode::BAD_REQUEST),
                (
                    "/pools/mx/backends/mx0",
                    r#"{"weight":1001}"#,
                    StatusCode::BAD_REQUEST,
                ),
                (
                    "/pools/mx/backends/mx0",
                    &long,
                    StatusCode::PAYLOAD_TOO_LARGE,
                ),
            ] {
                let answer = ask(&client, Method::PUT, path, body).await;
                assert_eq!(answer.status, expected, "{path} {}", text(&answer));
                let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap();
                assert!(!refusal.error.is_empty() && !refusal.remedy.is_empty());
            }
            let answer = ask(&client, Method::POST, "/pools/no/failback", "").await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
            let answer = ask(&client, Method::POST, "/pools/mx/failback", "").await;
            assert_eq!(answer.status, StatusCode::OK);
            // There is no control thread behind this handle.
            let answer = ask(&client, Method::POST, "/reload", "").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(
                status(&client).await.pools[0].tiers[0].backends[0].state,
                "unknown"
            );
        },
    );
}

#[test]
fn a_unix_socket_lets_its_users_change_things() {
    let folder = tempfile::tempdir().unwrap();
    let bind = AdminBind::Unix {
        path: folder.path().join("admin"),
        mode: 0o600,
        group: None,
    };
    beside(&process(1), &bind, None, async |address| {
        let client = client(&address, None);
        let changed = ask(
            &client,
            Method::PUT,
            "/pools/mx/backends/mx0",
            r#"{"state":"maint"}"#,
        )
        .await;
        assert_eq!(changed.status, StatusCode::OK, "{}", text(&changed));
        let shown = status(&client).await.pools[0].tiers[0].backends[0].clone();
        assert_eq!(shown.state, "maint");
        assert!(shown.cause.who.unwrap().starts_with("uid "));
    });
    assert!(
        !folder.path().join("admin").exists(),
        "the socket goes with its process"
    );
}

#[test]
fn not_ready_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let shared = process(1);
    let draining = Arc::clone(&shared);
    beside(
        &shared,
        &loopback(),
        Some(token_in(folder.path())),
        async move |address| {
            let client = client(&address, Some(TOKEN));
            let drain = r#"{"state":"drain"}"#;
            ask(&client, Method::PUT, "/pools/mx/backends/mx0", drain).await;
            let answer = ask(&client, Method::GET, "/readyz", "").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(
                text(&answer).contains("pool \"mx\" cannot take mail"),
                "{}",
                text(&answer)
            );

            let ready = r#"{"state":"ready"}"#;
            ask(&client, Method::PUT, "/pools/mx/backends/mx0", ready).await;
            assert_eq!(
                ask(&client, Method::GET, "/readyz", "").await.status,
                StatusCode::OK
            );
            draining.start_draining();
            let answer = ask(&client, Method::GET, "/readyz", "").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(text(&answer).contains("draining"));
            assert_eq!(status(&client).await.phase, "draining");
        },
    );
}

#[test]
fn a_foreign_page_can_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    beside(
        &process(1),
        &loopback(),
        Some(token_in(folder.path())),
        async |address| {
            let put = |headers: &str| {
                format!(
                    "PUT /pools/mx/backends/mx0 HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\n\
                 {headers}content-length: 17\r\n\r\n{{\"state\":\"drain\"}}"
                )
            };
            for headers in [
                "host: evil.example:8025\r\n",
                "host: localhost\r\norigin: http://evil.example\r\n",
                "host: localhost\r\norigin: null\r\n",
            ] {
                let answer = raw(&address, &put(headers)).await;
                assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            }
            let answer = raw(&address, &put("host: localhost\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        },
    );
}

#[test]
fn a_page_cannot_be_scripted_framed_or_sniffed() {
    beside(&process(1), &loopback(), None, async |address| {
        let page = raw(&address, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let page = page.to_ascii_lowercase();
        assert!(
            page.contains("\r\ncontent-security-policy: default-src 'none';"),
            "{page}"
        );
        assert!(page.contains("\r\nx-content-type-options: nosniff\r\n"));
        assert!(page.contains("frame-ancestors 'none'"));
        assert!(!page.contains("<script"));
    });
}

#[test]
fn long_headers_and_crowds_of_idle_clients_harm_nobody() {
    beside(&process(1), &loopback(), None, async |address| {
        let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(40_000));
        let answer = raw(&address, &long).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");

        let Address::Tcp(at) = &address else {
            panic!("TCP")
        };
        let mut idle = Vec::new();
        for _ in 0..300 {
            idle.push(TcpStream::connect(at.as_str()).await.unwrap());
        }
        // They hold every place, and one of them gives way.
        let client = client(&address, None);
        let answer = ask(&client, Method::GET, "/healthz", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        drop(idle);
    });
}

#[test]
fn a_client_that_dawdles_is_closed_at_the_header_and_at_the_body() {
    let short = Duration::from_millis(50);
    let long = Duration::from_mins(5);
    let slow_header = Timeouts {
        header: short,
        connection: long,
        ..Timeouts::default()
    };
    let slow_body = Timeouts {
        header: long,
        body: short,
        ..slow_header
    };
    let body = "PUT /pools/mx/backends/mx0 HTTP/1.1\r\nhost: localhost\r\n\
                authorization: Bearer s3cret\r\ncontent-length: 17\r\n\r\n{\"state\":";
    let folder = tempfile::tempdir().unwrap();
    for (timeouts, said) in [
        (slow_header, ""),
        (slow_header, "GET /healthz HTTP/1.1\r\nhost: local"),
        (slow_body, body),
    ] {
        let token = token_in(folder.path());
        beside_with(
            timeouts,
            &process(1),
            &loopback(),
            Some(token),
            async |address| {
                let Address::Tcp(at) = &address else {
                    panic!("TCP")
                };
                let mut stream = TcpStream::connect(at.as_str()).await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
                let mut heard = Vec::new();
                let ended = tokio::time::timeout(whole::PATIENCE, stream.read_to_end(&mut heard));
                // An end or a reset: octets of the question may be unread.
                let _ = ended.await.expect("it is closed");
                let heard = String::from_utf8_lossy(&heard);
                assert!(!heard.starts_with("HTTP/1.1 200"), "{said:?}: {heard}");
            },
        );
    }
    // The limits are for those who dawdle: others are served within them.
    assert_eq!(Timeouts::default().header, Duration::from_secs(2));
    assert_eq!(Timeouts::default().body, Duration::from_secs(5));
    assert_eq!(Timeouts::default().connection, Duration::from_secs(30));
}

#[test]
fn thousands_of_backends_are_one_valid_page() {
    beside(&process(5000), &loopback(), None, async |address| {
        let client = client(&address, None);
        let page = text(&ask(&client, Method::GET, "/metrics", "").await);
        let series = prometheus::check(&page).unwrap();
        let up = series
            .keys()
            .filter(|key| key.starts_with("posthouse_backend_weight{"));
        assert_eq!(up.count(), 5000);
        assert_eq!(status(&client).await.pools[0].tiers[0].backends.len(), 5000);
    });
}

/// A file with one listener on `at`, and one more line.
fn file(at: SocketAddr, more: &str) -> String {
    format!(
        "workers = 1\n{more}\n[listeners.mx]\nbind = [\"{at}\"]\npool = \"mx\"\n\
         [pools.mx.health]\nprobe = false\n[pools.mx.backends]\n\
         one = {{ address = \"127.0.0.1:9\" }}\n"
    )
}

#[test]
fn a_reload_by_http_says_what_it_did_and_every_mistake_if_it_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posthouse.toml");
    let at = whole::dead();
    std::fs::write(&path, file(at, "")).unwrap();
    let config = posthouse::config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let token = token_in(folder.path());
    let endpoint = AdminListener::bind(&loopback()).unwrap();
    let address = Address::Tcp(endpoint.address().unwrap().to_string());
    let options = StartOptions {
        config_path: Some(path.clone()),
        on_control: Some(Box::new(|handle| {
            let never = std::future::pending();
            let serving = serve(endpoint, Some(token), handle, Timeouts::default(), never);
            Ok(Box::pin(async { serving.await.unwrap() }))
        })),
        ..StartOptions::default()
    };
    let running = whole::run_with(options, config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = client(&address, Some(TOKEN));
        assert_eq!(status(&client).await.listeners[0].bind, [at.to_string()]);

        std::fs::write(&path, file(at, "max_sessions = 10")).unwrap();
        let answer = ask(&client, Method::POST, "/reload", "").await;
        let report: Reload = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.status, report.ok, report.generation),
            (StatusCode::OK, true, 2)
        );
        assert!(!report.changes.is_empty());

        std::fs::write(&path, file(at, "max_sesions = 10\nwatch = 7")).unwrap();
        let answer = ask(&client, Method::POST, "/reload", "").await;
        let report: Reload = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(
            (report.ok, report.generation, report.mistakes.len()),
            (false, 2, 2)
        );
        let shown = status(&client).await;
        assert_eq!((shown.generation, shown.last_reload), (2, Some(report)));
    });
    drop(running);
}

#[test]
fn an_endpoint_that_is_not_there_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gone = Address::Tcp(whole::dead().to_string());
    for address in [gone, Address::Unix(folder.path().join("nothing"))] {
        let asked = client(&address, None);
        let error = runtime
            .block_on(asked.ask(Method::GET, "/status", None))
            .unwrap_err();
        assert!(matches!(error, ClientError::Refused(_)), "{error}");
        let named = format!("nobody listens on {address}");
        assert_eq!(error.to_string(), named);
    }
}

/// Sends these octets and returns everything that comes back.
async fn raw(address: &Address, octets: &str) -> String {
    let Address::Tcp(address) = address else {
        panic!("TCP")
    };
    let mut stream = TcpStream::connect(address.as_str()).await.unwrap();
    // The other side may refuse before it has read everything.
    let _ = stream.write_all(octets.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
