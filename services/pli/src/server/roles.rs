// SPDX-License-Identifier: MIT OR Apache-2.0
//! The roles of this process, wired. A service in this process is reached through a client built straight over the
//! server value, one elsewhere through the internal port: the same calls either way.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use pli_api::Channel;
use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::links::links_server::LinksServer;
use pli_api::media::media_server::MediaServer;
use pli_conversations::ConversationsService;
use pli_delivery::{Beside, Delivery, DeliveryPorts};
use pli_directory::Directory;
use pli_domain::ShardId;
use pli_edge::{Edge, EdgePorts, Identity};
use pli_links::LinksService;
use pli_media::{Blobs, MediaService};
use pli_ports::{Clock, Payloads, SystemClock};
use pli_runtime::trail::Tracer;
use pli_runtime::{Health, Telemetry, Trail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::internal::{Internal, Peers, Served};
use super::listeners::Listeners;
use super::no_media::NoMedia;
use super::role::{Role, Roles};
use super::traced::{carrying, in_process};
use crate::config::{Config, EngineKind, TlsMaterial};
use crate::exit::{Exit, ExitContext, Failure};

/// What all roles are made from.
pub struct Ground<'a> {
    config: &'a Config,
    engine: &'a Engine,
    telemetry: &'a Telemetry,
    trail: &'a Trail,
    roles: &'a Roles,
    /// How other processes are met, where that is set.
    material: Option<TlsMaterial>,
    clock: Arc<dyn Clock>,
}

impl<'a> Ground<'a> {
    /// Over an open engine.
    pub fn new(
        config: &'a Config,
        engine: &'a Engine,
        (telemetry, trail): (&'a Telemetry, &'a Trail),
        roles: &'a Roles,
    ) -> Result<Self, Failure> {
        engine.export(&telemetry.meter("engine"));
        let material = config.internal.is_set().then(|| config.internal.material()).transpose()?;
        Ok(Self { config, engine, telemetry, trail, roles, material, clock: Arc::new(SystemClock) })
    }

    /// Builds every role and listens; nothing is served yet. Owners of shards have an edge too, without listeners: their
    /// fan-out workers are its sessions. `identity` is what an edge shows to clients.
    pub async fn wire(&self, identity: Option<&Identity>) -> Result<Wired, Failure> {
        let directory = self.roles.has(Role::Directory).then(|| self.directory()).transpose()?;
        let conversations = match self.roles.has(Role::Conversations) {
            true => Some(self.conversations(self.directory_channel(directory.as_ref())?)?),
            false => None,
        };
        let links = self.roles.has(Role::Links).then(|| self.links()).transpose()?;
        let media = self.roles.has(Role::Media).then(|| self.media()).transpose()?;
        let (mut edge, mut listeners) = (None, None);
        if identity.is_some() || self.roles.has(Role::Delivery) {
            edge = Some(self.edge(Services {
                directory: self.directory_channel(directory.as_ref())?,
                conversations: self.conversations_channel(conversations.as_ref())?,
                links: self.links_channel(links.as_ref())?,
                media: self.media_channel(media.as_ref())?,
            })?);
        }
        if let (Some(edge), Some(identity)) = (&edge, identity) {
            listeners = Some(Listeners::bind(edge, &self.config.server, identity).await?);
        }
        let delivery = match &edge {
            Some(edge) if self.roles.has(Role::Delivery) => Some(self.delivery(edge)?),
            _ => None,
        };
        let internal = match &self.material {
            Some(material)
                if [Role::Directory, Role::Conversations, Role::Links, Role::Media]
                    .into_iter()
                    .any(|role| self.roles.has(role)) =>
            {
                Some(Internal::bind(&self.config.internal, material).await?)
            }
            _ => None,
        };
        let tracer = self.trail.tracer.clone();
        Ok(Wired { delivery, directory, conversations, links, media, edge, listeners, internal, tracer })
    }

    fn directory_channel(&self, here: Option<&Directory>) -> Result<Channel, Failure> {
        match here {
            Some(directory) => Ok(in_process(DirectoryServer::new(directory.clone()), &self.trail.tracer)),
            None => self.peers(Role::Directory),
        }
    }

    fn conversations_channel(&self, here: Option<&ConversationsService>) -> Result<Channel, Failure> {
        match here {
            Some(conversations) => Ok(in_process(ConversationsServer::new(conversations.clone()), &self.trail.tracer)),
            None => self.peers(Role::Conversations),
        }
    }

    fn links_channel(&self, here: Option<&LinksService>) -> Result<Channel, Failure> {
        match here {
            Some(links) => Ok(in_process(LinksServer::new(links.clone()), &self.trail.tracer)),
            None => self.peers(Role::Links),
        }
    }

    fn media_channel(&self, here: Option<&MediaService>) -> Result<Channel, Failure> {
        match here {
            Some(media) => Ok(in_process(MediaServer::new(media.clone()), &self.trail.tracer)),
            // A cluster that was set up before there were uploads goes on without them.
            None if self.config.internal.media.is_empty() => {
                if self.roles.has(Role::Edge) {
                    tracing::warn!("internal.media is empty: clients can hand over no history");
                }
                Ok(in_process(MediaServer::new(NoMedia), &self.trail.tracer))
            }
            None => self.peers(Role::Media),
        }
    }

    fn peers(&self, role: Role) -> Result<Channel, Failure> {
        let missing = || {
            let text = format!(
                "the role {role} is not in this process and internal.ca_file is not set; set it with \
                 internal.certificate_file and internal.key_file, or add --role {role}"
            );
            Failure::say(Exit::Config, text)
        };
        let material = self.material.as_ref().ok_or_else(missing)?;
        let channel = Peers::new(role, &self.config.internal, material)?.channel();
        Ok(carrying(channel, &self.trail.tracer))
    }

    fn delivery(&self, edge: &Edge) -> Result<Delivery, Failure> {
        let (bus, tables) = (self.engine.bus()?, self.engine.tables()?);
        let ports = DeliveryPorts {
            log: bus.log.clone(),
            signals: bus.signals.clone(),
            leases: bus.leases.clone(),
            queues: tables.queues.clone(),
            clock: self.clock.clone(),
            trail: self.trail.clone(),
            beside: Some(Arc::new(FanOut { edge: edge.clone(), payloads: tables.payloads.clone() })),
        };
        let meter = self.telemetry.meter("delivery");
        Ok(Delivery::new(ports, bus.shards, self.config.delivery.clone(), &meter, rand::random()))
    }

    fn directory(&self) -> Result<Directory, Failure> {
        let meter = self.telemetry.meter("directory");
        let bus = self.engine.bus()?;
        let ports = pli_directory::Ports {
            accounts: self.engine.tables()?.accounts.clone(),
            signals: bus.signals.clone(),
            clock: self.clock.clone(),
        };
        Ok(Directory::new(ports, bus.shards, self.config.directory.clone(), &meter))
    }

    fn conversations(&self, directory: Channel) -> Result<ConversationsService, Failure> {
        let (bus, tables) = (self.engine.bus()?, self.engine.tables()?);
        let ports = pli_conversations::Ports {
            conversations: tables.conversations.clone(),
            payloads: tables.payloads.clone(),
            log: bus.log.clone(),
            clock: self.clock.clone(),
            directory,
        };
        let meter = self.telemetry.meter("conversations");
        let post_quantum = self.config.directory.post_quantum;
        let config = pli_conversations::Config { post_quantum, ..self.config.conversations.clone() };
        Ok(ConversationsService::new(ports, bus.shards, config, &meter))
    }

    fn links(&self) -> Result<LinksService, Failure> {
        let meter = self.telemetry.meter("links");
        let links = self.engine.tables()?.links.clone();
        Ok(LinksService::new(links, self.clock.clone(), self.config.links.clone(), &meter))
    }

    fn media(&self) -> Result<MediaService, Failure> {
        if self.config.engine.kind == EngineKind::Cluster && self.config.media.folder.as_os_str().is_empty() {
            let text = "media.folder is empty: on a cluster name a folder that all processes with the role media share, \
                        or leave the role out with --role";
            return Err(Failure::say(Exit::Config, text));
        }
        let tables = self.engine.tables()?;
        let ports = pli_media::Ports {
            media: tables.media.clone(),
            accounts: tables.accounts.clone(),
            clock: self.clock.clone(),
        };
        let blobs = Blobs::local(&self.config.media_folder()).exit(Exit::Folder)?;
        Ok(MediaService::new(ports, blobs, self.config.media.clone(), &self.telemetry.meter("media")))
    }

    fn edge(&self, services: Services) -> Result<Edge, Failure> {
        let Services { directory, conversations, links, media } = services;
        let bus = self.engine.bus()?;
        let ports = EdgePorts {
            log: bus.log.clone(),
            signals: bus.signals.clone(),
            clock: self.clock.clone(),
            directory,
            conversations,
            links,
            media,
            registration: self.config.directory.registration.name(),
            history: self.engine.history(),
            trail: self.trail.clone(),
        };
        let meter = self.telemetry.meter("edge");
        let post_quantum = self.config.directory.post_quantum;
        let config = pli_edge::Config { post_quantum, ..self.config.edge.clone() };
        Ok(Edge::new(ports, bus.shards, config, &meter, rand::random()))
    }
}

/// The fan-out workers of this process: each runs beside the owner of its shard, on the owner's lease.
struct FanOut {
    edge: Edge,
    payloads: Arc<dyn Payloads>,
}

impl Beside for FanOut {
    fn run(&self, shard: ShardId, stop: CancellationToken) -> BoxFuture<'static, ()> {
        let (edge, payloads) = (self.edge.clone(), self.payloads.clone());
        Box::pin(async move { edge.fan_out(shard, payloads, stop).await })
    }
}

/// Where an edge finds what it passes calls to.
struct Services {
    directory: Channel,
    conversations: Channel,
    links: Channel,
    media: Channel,
}

/// Roles that have not begun.
pub struct Wired {
    delivery: Option<Delivery>,
    directory: Option<Directory>,
    conversations: Option<ConversationsService>,
    links: Option<LinksService>,
    media: Option<MediaService>,
    edge: Option<Edge>,
    listeners: Option<Listeners>,
    internal: Option<Internal>,
    tracer: Tracer,
}

impl Wired {
    /// Where sessions are accepted.
    pub const fn listeners(&self) -> Option<&Listeners> {
        self.listeners.as_ref()
    }

    /// Where other processes are served.
    pub fn internal(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(Internal::address)
    }

    /// Starts every role.
    pub fn start(self, engine: &Engine, health: &Health) -> Running {
        let (mut outer, mut inner) = (Group::default(), Group::default());
        inner.run(|stop| engine.clone().watch(health, stop));
        if let Some(delivery) = self.delivery {
            inner.run(|stop| async move { delivery.run(stop).await.map_err(failed) });
        }
        if let Some(directory) = self.directory.clone() {
            inner.run(|stop| async move {
                directory.run(stop).await;
                Ok(())
            });
        }
        if let Some(internal) = self.internal {
            let served = Served {
                directory: self.directory,
                conversations: self.conversations.clone(),
                links: self.links.clone(),
                media: self.media.clone(),
                tracer: self.tracer,
            };
            inner.run(|stop| internal.run(served, stop));
        }
        if let Some(conversations) = self.conversations {
            inner.run(|stop| async move {
                conversations.run(stop).await;
                Ok(())
            });
        }
        if let Some(links) = self.links {
            inner.run(|stop| async move {
                links.run(stop).await;
                Ok(())
            });
        }
        if let Some(media) = self.media {
            inner.run(|stop| async move {
                media.run(stop).await;
                Ok(())
            });
        }
        if let Some(edge) = self.edge {
            outer.run(|stop| async move { edge.run(stop).await.map_err(failed) });
        }
        if let Some(listeners) = self.listeners {
            outer.run(|stop| async move {
                listeners.run(stop).await;
                Ok(())
            });
        }
        Running { outer, inner }
    }
}

fn failed(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Failed, error)
}

/// The running roles.
pub struct Running {
    /// Who takes work from outside; ends first.
    outer: Group,
    /// Who does the work; ends when nobody asks for any.
    inner: Group,
}

impl Running {
    /// Resolves when a role has ended although nobody asked it to.
    pub async fn failed(&mut self) -> Failure {
        let ended = tokio::select! {
            Some(ended) = self.outer.tasks.join_next() => ended,
            Some(ended) = self.inner.tasks.join_next() => ended,
            else => std::future::pending().await,
        };
        match ended {
            Ok(Ok(())) => Failure::say(Exit::Failed, "a role ended by itself; this is a defect"),
            Ok(Err(failure)) => failure,
            Err(panicked) => failed(panicked),
        }
    }

    /// Ends the sessions, then what serves them.
    pub async fn close(&mut self) {
        self.outer.close().await;
        self.inner.close().await;
    }
}

/// Tasks that end together.
#[derive(Default)]
struct Group {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Group {
    fn run<F>(&mut self, role: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.tasks.spawn(role(self.stop.clone()));
    }

    async fn close(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(failure)) = ended {
                tracing::warn!(error = %failure.error, "a role ended with an error");
            }
        }
    }
}
