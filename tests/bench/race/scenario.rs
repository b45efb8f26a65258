//! What is asked for, and which bars must be taken there.

/// One way of loading a proxy.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) target: &'static str,
    pub(crate) connections: usize,
    /// Bytes of the request body; 0: a GET.
    pub(crate) body: usize,
    /// A new client connection for every request.
    pub(crate) closes: bool,
    /// Everybody writes an access log.
    pub(crate) log: bool,
    pub(crate) around: Around,
    /// What the processor time is divided by.
    pub(crate) per: Per,
    /// The relay that parses nothing takes part.
    pub(crate) floor: bool,
}

/// What is there beside the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    Nothing,
    /// The backends take 100 ms for each answer.
    SlowBackends,
    /// So many more clients, which have had an answer and are silent.
    IdleCrowd(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Request,
    /// MiB of body.
    Mebibyte,
}

const GET: Scenario = Scenario {
    name: "",
    what: "",
    target: "/small",
    connections: 64,
    body: 0,
    closes: false,
    log: false,
    around: Around::Nothing,
    per: Per::Request,
    floor: false,
};

const SMALL: Scenario = Scenario { floor: true, ..GET };
const LOGGED: Scenario = Scenario { log: true, ..GET };
const BODY: Scenario = Scenario { per: Per::Mebibyte, ..GET };

pub(crate) static SCENARIOS: [Scenario; 20] = [
    Scenario { name: "small-1", what: "small GET, 1 connection", connections: 1, ..SMALL },
    Scenario { name: "small-16", what: "small GET, 16 connections", connections: 16, ..SMALL },
    Scenario { name: "small-64", what: "small GET, 64 connections", connections: 64, ..SMALL },
    Scenario { name: "small-256", what: "small GET, 256 connections", connections: 256, ..SMALL },
    Scenario { name: "small-1024", what: "small GET, 1,024 connections", connections: 1024, ..SMALL },
    Scenario { name: "log-16", what: "small GET, 16 connections, access log on", connections: 16, ..LOGGED },
    Scenario { name: "log-64", what: "small GET, 64 connections, access log on", connections: 64, ..LOGGED },
    Scenario { name: "log-256", what: "small GET, 256 connections, access log on", connections: 256, ..LOGGED },
    Scenario { name: "log-1024", what: "small GET, 1,024 connections, access log on", connections: 1024, ..LOGGED },
    Scenario { name: "body-4k", what: "answers of 4 KiB, 64 connections", target: "/4k", ..GET },
    Scenario { name: "body-64k", what: "answers of 64 KiB, 64 connections", target: "/64k", ..BODY },
    Scenario { name: "body-1m", what: "answers of 1 MiB, 16 connections", target: "/1m", connections: 16, ..BODY },
    Scenario { name: "body-100m", what: "answers of 100 MiB, 4 connections", target: "/100m", connections: 4, ..BODY },
    Scenario { name: "chunked", what: "chunked answers of 16 KiB, 64 connections", target: "/chunked", ..GET },
    Scenario { name: "post-1k", what: "POST of 1 KiB, 64 connections", target: "/post", body: 1024, ..GET },
    Scenario { name: "post-64k", what: "POST of 64 KiB, 64 connections", target: "/post", body: 65536, ..BODY },
    Scenario {
        name: "new-connection",
        what: "a new client connection for each small GET, 64 at once",
        closes: true,
        ..GET
    },
    Scenario {
        name: "closing-backend",
        what: "a backend that closes after each small answer, 64 connections",
        target: "/closing",
        ..GET
    },
    Scenario {
        name: "slow-backend",
        what: "a backend that takes 100 ms, 2,000 connections",
        connections: 2000,
        around: Around::SlowBackends,
        ..GET
    },
    Scenario {
        name: "idle-10000",
        what: "10,000 idle connections beside 64 busy ones",
        around: Around::IdleCrowd(10_000),
        ..GET
    },
];

/// The scenarios that are meant by a name, or by the beginning of one and `*`.
pub(crate) fn named(name: &str) -> Vec<&'static Scenario> {
    let is_meant = |scenario: &&Scenario| match name.strip_suffix('*') {
        Some(beginning) => scenario.name.starts_with(beginning),
        None => scenario.name == name,
    };
    let found: Vec<_> = SCENARIOS.iter().filter(is_meant).collect();
    assert!(!found.is_empty(), "there is no scenario {name}; --list says which there are");
    found
}

/// What is compared at a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Processor time per request, or per MiB.
    Cpu,
    Rate,
    P99,
    /// Memory of each idle connection.
    IdleBytes,
    Threads,
    Syscalls,
    /// Those of them that moved bytes.
    Moves,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    BestPeer,
    Floor,
    /// As it is, in its own unit.
    Nobody,
}

/// A claim: ours, against somebody's, is at most (or at least) so much, in each of these scenarios.
pub(crate) struct Bar {
    pub(crate) claim: &'static str,
    pub(crate) scenarios: &'static [&'static str],
    pub(crate) metric: Metric,
    pub(crate) against: Against,
    pub(crate) limit: f64,
}

impl Bar {
    /// Whether it is taken: for rates more is better, for all else less.
    pub(crate) fn is_taken(&self, value: f64) -> bool {
        if self.metric == Metric::Rate { value >= self.limit } else { value <= self.limit }
    }

    pub(crate) fn sign(&self) -> &'static str {
        if self.metric == Metric::Rate { "≥" } else { "≤" }
    }
}

const BUSY: &[&str] = &["small-16", "small-64", "small-256", "small-1024"];
const EVERY: &[&str] = &["*"];

pub(crate) static BARS: [Bar; 15] = [
    bar("processor time per small GET", BUSY, Metric::Cpu, Against::BestPeer, 0.90),
    bar("the same, against the floor", BUSY, Metric::Cpu, Against::Floor, 1.10),
    bar(
        "processor time with the access log on",
        &["log-16", "log-64", "log-256", "log-1024"],
        Metric::Cpu,
        Against::BestPeer,
        0.85,
    ),
    bar("requests per second (noisy)", BUSY, Metric::Rate, Against::BestPeer, 1.0),
    bar("p99 (noisy)", &["small-64", "small-256"], Metric::P99, Against::BestPeer, 1.0),
    bar("processor time, one connection", &["small-1"], Metric::Cpu, Against::BestPeer, 1.0),
    bar(
        "processor time per body byte",
        &["body-64k", "body-1m", "body-100m", "post-64k"],
        Metric::Cpu,
        Against::BestPeer,
        0.85,
    ),
    bar(
        "processor time, connections that are not kept",
        &["new-connection", "closing-backend"],
        Metric::Cpu,
        Against::BestPeer,
        0.95,
    ),
    bar("requests per second, slow backend", &["slow-backend"], Metric::Rate, Against::BestPeer, 1.0),
    // Two workers, and: main, checks, names, signals, the admin page's few, the writers of two logs.
    bar("threads, slow backend", &["slow-backend"], Metric::Threads, Against::Nobody, 12.0),
    bar("memory of an idle connection", &["idle-10000"], Metric::IdleBytes, Against::BestPeer, 1.0),
    bar("the same, bytes", &["idle-10000"], Metric::IdleBytes, Against::Nobody, 1024.0),
    bar("system calls per small GET", &["small-64"], Metric::Syscalls, Against::Nobody, 7.0),
    bar("of which move bytes", &["small-64"], Metric::Moves, Against::Nobody, 4.05),
    bar("failed requests", EVERY, Metric::Failed, Against::Nobody, 0.0),
];

const fn bar(
    claim: &'static str,
    scenarios: &'static [&'static str],
    metric: Metric,
    against: Against,
    limit: f64,
) -> Bar {
    Bar { claim, scenarios, metric, against, limit }
}
