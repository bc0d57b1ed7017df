package audit

import (
	"cmp"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/api"
)

// maxPeers is how many peers statistics name.
const maxPeers = 100

// Stats adds up the records that are kept in dir.
func Stats(dir string) (api.NetStats, error) {
	var s api.NetStats
	peers := map[string]*api.NetPeer{}
	r := NewReader(dir)
	defer func() { _ = r.Close() }()
	err := r.Each(func(rec api.NetRecord) error {
		if s.Since.IsZero() || rec.Time.Before(s.Since) {
			s.Since = rec.Time
		}
		if rec.Kind == KindDropped {
			s.Dropped += rec.Count
			return nil
		}
		s.Records++
		tally(&s, rec)
		name := cmp.Or(rec.Name, rec.Addr)
		if name == "" {
			return nil
		}
		p := peers[name]
		if p == nil {
			p = &api.NetPeer{Name: name}
			peers[name] = p
		}
		tallyPeer(p, rec)
		return nil
	})
	for _, p := range peers {
		s.Peers = append(s.Peers, *p)
	}
	slices.SortFunc(s.Peers, func(a, b api.NetPeer) int {
		return cmp.Or(cmp.Compare(b.BytesIn+b.BytesOut, a.BytesIn+a.BytesOut), cmp.Compare(b.Allowed+b.Denied, a.Allowed+a.Denied), strings.Compare(a.Name, b.Name))
	})
	s.MorePeers = max(0, len(s.Peers)-maxPeers)
	s.Peers = s.Peers[:len(s.Peers)-s.MorePeers]
	return s, err
}

func tallyPeer(p *api.NetPeer, rec api.NetRecord) {
	denied := rec.Verdict != "allow"
	switch {
	case rec.Kind == KindHTTP:
		p.Requests++
		if denied {
			p.RequestsDenied++
		}
		return
	case denied:
		p.Denied++
	default:
		p.Allowed++
	}
	p.BytesIn += rec.BytesIn
	p.BytesOut += rec.BytesOut
}

// tally adds a record to the sums.
func tally(s *api.NetStats, rec api.NetRecord) {
	if rec.Kind == KindHTTP { // its bytes are its connection's, which has a record of its own
		s.Requests++
		if rec.Verdict != "allow" {
			s.RequestsDenied++
		}
		return
	}
	s.BytesIn += rec.BytesIn
	s.BytesOut += rec.BytesOut
	allowed, denied := &s.FlowsAllowed, &s.FlowsDenied
	switch rec.Kind {
	case "tcp", "udp", "port":
	case "dns":
		allowed, denied = &s.DNSAllowed, &s.DNSDenied
	default: // frames and the like, many in a record
		if rec.Verdict == "deny" {
			s.OtherDenied += max(rec.Count, 1)
		}
		return
	}
	if rec.Verdict == "allow" {
		*allowed++
	} else {
		*denied++
	}
}
