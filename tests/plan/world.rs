//! A compose text, what exists, and the plan that follows.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use wharf::plan::placement::{Placement, Wishes, place};
use wharf::plan::policy::Policy;
use wharf::plan::{self, Inputs, Plan};
use wharf::port::claim::{Claim, Protocol};
use wharf::port::holder::{ContainerFacts, Holder, ListeningSocket, ProcessFacts, Who};
use wharf::project::model::Project;
use wharf::project::{self, Env, Files, LoadOptions};
use wharf::state::{Held, Observed};

/// One compose file in memory.
struct OneFile(&'static str);

const PATH: &str = "/shop/compose.yaml";

impl Files for OneFile {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        if path == Path::new(PATH) {
            Ok(self.0.as_bytes().to_vec())
        } else {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path == Path::new(PATH)
    }

    fn is_dir(&self, _: &Path) -> bool {
        false
    }
}

/// Loads project `shop` from a text.
pub(crate) fn load(text: &'static str) -> Project {
    let env = Env {
        current_dir: PathBuf::from("/shop"),
        ..Env::default()
    };
    let options = LoadOptions {
        files: vec![PathBuf::from(PATH)],
        ..LoadOptions::default()
    };
    match project::load(&options, &env, &OneFile(text)) {
        Ok(loaded) => loaded.project,
        Err(error) => panic!("{:?}", error.diagnostics),
    }
}

/// A project and all that its plan depends on.
pub(crate) struct World {
    pub(crate) project: Project,
    pub(crate) placement: Placement,
    pub(crate) observed: Observed,
    pub(crate) policy: Policy,
}

impl World {
    /// A project of which nothing exists but its images.
    pub(crate) fn new(text: &'static str) -> Self {
        let project = load(text);
        let placement = place(&project, &Wishes::default()).expect("every service has a place");
        let mut observed = Observed::default();
        for service in project.services.values() {
            if service.image.is_some() {
                let image = service.image_name(&project.name);
                observed
                    .images
                    .insert(image.clone(), format!("sha256:{image}"));
            }
        }
        Self {
            project,
            placement,
            observed,
            policy: Policy::default(),
        }
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            project: &self.project,
            placement: &self.placement,
            observed: &self.observed,
            policy: &self.policy,
        }
    }

    pub(crate) fn up(&self) -> Plan {
        plan::up(&self.inputs())
    }

    /// The claim on a port that some service makes.
    pub(crate) fn claim(&self, port: u16) -> Claim {
        let claims = plan::claims(&self.inputs());
        claims
            .into_iter()
            .find(|claim| claim.port == port)
            .expect("some service needs the port")
    }

    /// Gives a port to holders, with these free ports after it.
    pub(crate) fn hold(&mut self, port: u16, holders: Vec<Holder>, free: &[u16]) {
        let claim = self.claim(port);
        self.observed
            .free_ports
            .insert((port, claim.protocol), free.to_vec());
        self.observed.held.push(Held { claim, holders });
    }
}

/// A listening socket on a loopback port.
fn socket(port: u16) -> ListeningSocket {
    ListeningSocket {
        address: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port),
        protocol: Protocol::Tcp,
        only_v6: false,
        uid: 1000,
        inode: 4711,
        cgroup_id: None,
        listening: true,
    }
}

/// A Python server of this user.
pub(crate) fn python(port: u16, run_id: Option<&str>) -> Holder {
    let facts = ProcessFacts {
        pid: 4711,
        start_time: 99,
        uid: 1000,
        user: Some("dev".to_owned()),
        name: "python3".to_owned(),
        command: ["python3", "ws.py"].map(str::to_owned).to_vec(),
        exe: None,
        cwd: None,
        started: 0,
        age_seconds: 60,
        ancestors: Vec::new(),
        run_id: run_id.map(str::to_owned),
        signalable: true,
        heads_namespace: false,
        tracer: None,
    };
    Holder {
        who: Who::Process(Box::new(facts)),
        sockets: vec![socket(port)],
        protected: None,
        orphan: false,
        service: None,
        carries: Vec::new(),
        sharing: Vec::new(),
        also_listens: Vec::new(),
        debugged_below: None,
    }
}

/// A container of another project.
pub(crate) fn container(port: u16) -> Holder {
    let facts = ContainerFacts {
        id: "f".repeat(64),
        name: "blog-web-1".to_owned(),
        image: "nginx".to_owned(),
        command: "nginx".to_owned(),
        project: Some("blog".to_owned()),
        service: Some("web".to_owned()),
        created: 0,
        engine: "unix:///var/run/docker.sock".to_owned(),
        removal: None,
    };
    Holder {
        who: Who::Container(Box::new(facts)),
        sockets: vec![socket(port)],
        protected: None,
        orphan: false,
        service: None,
        carries: Vec::new(),
        sharing: Vec::new(),
        also_listens: Vec::new(),
        debugged_below: None,
    }
}

/// Ports that no test's services use.
pub(crate) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
