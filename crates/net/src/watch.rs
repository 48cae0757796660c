//! Listens to the kernel: addresses become free when their interfaces go, and foreign changes of
//! the packet filter are made good.

use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};

use crate::NetError;
use crate::network::{Inner, lock};
use crate::nft::{self, Nft};
use crate::nl::{attribute, read_string};
use crate::rt::{self, Route};
use crate::rules;

const RTNLGRP_LINK: u32 = 1;

/// The sockets that are subscribed.
#[derive(Debug)]
pub(crate) struct Watcher {
    links: Route,
    filter: Nft,
    /// Address of the engine's own socket, whose changes are no news.
    own: u32,
}

/// What is to be done after a batch of notifications.
#[derive(Debug, Default)]
struct News {
    table_gone: bool,
    docker_user: bool,
    docker_bridge: Option<String>,
}

impl Watcher {
    pub(crate) fn open(inner: &Inner) -> Result<Self, NetError> {
        let open = || {
            let (links, filter) = (Route::open()?, Nft::open()?);
            links.0.join(RTNLGRP_LINK)?;
            filter.0.join(nft::GROUP)?;
            Ok(Self { links, filter, own: lock(&inner.nft).0.port()? })
        };
        open().map_err(NetError::netlink("subscribe to notifications"))
    }

    pub(crate) fn run(mut self, inner: &Arc<Inner>) {
        loop {
            let mut fds = [
                PollFd::new(&inner.stop, PollFlags::IN),
                PollFd::from_borrowed_fd(self.links.0.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.filter.0.fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "poll for notifications of the kernel");
                    return;
                }
            }
            let [stop, links, filter] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                return;
            }
            let mut news = News::default();
            if links {
                self.read_links(inner, &mut news);
            }
            if filter {
                self.read_filter(inner, &mut news);
            }
            if let Err(error) = news.act(inner) {
                tracing::warn!(%error, "restore packet filter rules");
            }
        }
    }

    fn read_links(&mut self, inner: &Inner, news: &mut News) {
        let mut gone = Vec::new();
        let complete = self.links.0.notifications(|message| {
            // Family 0 is the interface; a bridge reports the same of its port.
            if message.payload.first() != Some(&0) {
                return;
            }
            if message.kind == rt::DELLINK {
                gone.extend(rt::link_index(message));
            } else if let Some(link) = rt::parse_link(message.payload)
                && link.kind == "bridge"
                && rules::is_dockers(&link.name)
            {
                news.docker_bridge = Some(link.name);
            }
        });
        let mut addresses = lock(&inner.addresses);
        if let Ok(true) = complete {
            for index in gone {
                addresses.forget(index);
            }
            return;
        }
        // Some notifications were lost: look what is there. New interfaces are entered under the
        // same lock after they were created, so that none of them can be missed here.
        match lock(&inner.route).links() {
            Ok(links) => {
                let known: Vec<u32> = addresses.by_link.keys().copied().collect();
                for index in known {
                    if !links.iter().any(|link| link.index == index) {
                        addresses.forget(index);
                    }
                }
                news.table_gone = true;
            }
            Err(error) => tracing::warn!(%error, "list interfaces"),
        }
    }

    fn read_filter(&mut self, inner: &Inner, news: &mut News) {
        let own = self.own;
        let complete = self.filter.0.notifications(|message| {
            let attributes = message.payload.get(nft::FIXED..).unwrap_or_default();
            let named =
                |kind, name| attribute(attributes, kind).map(read_string).as_deref() == Some(name);
            match message.kind {
                nft::DELTABLE => {
                    news.table_gone |= message.port != own && named(1, inner.config.table.as_str());
                }
                nft::NEWCHAIN => {
                    news.docker_user |= named(1, rules::FILTER) && named(3, rules::DOCKER_USER);
                }
                _ => {}
            }
        });
        if !matches!(complete, Ok(true)) {
            news.docker_user = true;
            news.table_gone |= !lock(&inner.nft).has_table(&inner.config.table).unwrap_or(true);
        }
    }
}

impl News {
    fn act(self, inner: &Inner) -> Result<(), NetError> {
        if !lock(&inner.pool).started {
            return Ok(());
        }
        if self.table_gone {
            tracing::info!(table = inner.config.table, "write the table anew");
            return inner.write_table();
        }
        let mut nft = lock(&inner.nft);
        if let Some(name) = self.docker_bridge {
            let mut transaction = nft::Transaction::new();
            rules::add_foreign(&mut transaction, &inner.config.table, &name);
            nft.commit(transaction).map_err(NetError::netlink("note a bridge of Docker"))?;
        }
        if self.docker_user && inner.config.docker_user {
            rules::allow_in_docker_user(&mut nft, &inner.config.bridge)
                .map_err(NetError::netlink("add rules to DOCKER-USER"))?;
        }
        Ok(())
    }
}

impl crate::network::Addresses {
    fn forget(&mut self, index: u32) {
        if let Some(ip) = self.by_link.remove(&index) {
            self.ipam.free(ip);
        }
    }
}
