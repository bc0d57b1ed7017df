package uplink

import "os"

// NIC is the card's end of the wire that Start made (nil when it made none), which is then the wire again, whatever Take was given. It stays open
// until Close.
func (u *Uplink) NIC() *os.File {
	u.mu.Lock()
	taken := u.taken != nil
	u.mu.Unlock()
	if taken {
		_ = u.Take(nil)
	}
	return u.nic
}

// Take has the gateway work at f, the other end of a card that a monitor made, in place of the wire that Start made. It owns
// f. A gateway that works at another wire is followed by one that works at this.
func (u *Uplink) Take(f *os.File) error {
	u.mu.Lock()
	former, s := u.taken, u.begun
	u.taken, u.rewired = f, true
	u.mu.Unlock()
	if s != nil {
		s.child.Kill()
	}
	if former != nil {
		return former.Close()
	}
	return nil
}

// end is the gateway's end of the wire.
func (u *Uplink) end() *os.File {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken != nil {
		return u.taken
	}
	return u.wire
}

// begin notes which gateway is there, and says whether it has the right wire.
func (u *Uplink) begin(s *session, wire *os.File) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.begun = s
	return u.taken == wire || u.taken == nil && u.wire == wire
}

// anotherWire says whether a gateway ended because there is another wire, which is no failure of its.
func (u *Uplink) anotherWire() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.rewired
	u.rewired = false
	return was
}
