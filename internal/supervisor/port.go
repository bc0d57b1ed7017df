package supervisor

import (
	"context"
	"strconv"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/publish"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// newPorts takes over the listeners that lifecycle made, so that a port which is taken was refused before the start.
func (s *supervisor) newPorts() *publish.Set {
	set := publish.New(publish.Options{
		Forward: s.relay.Forward,
		Record:  func(r api.NetRecord) { s.record(r) }, // by then there is one
		Active:  s.idle.Touch,
		Crowded: func(limit int) {
			s.note(api.Event{Type: "port", Reason: strconv.Itoa(limit) + " connections are open, as many as may be; more wait"})
		},
		Log: s.log,
	})
	for i, l := range s.in.Ports {
		set.Adopt(l, s.in.Plan.Ports[i])
	}
	return set
}

// changePort publishes a port, or ends that. What is published is also kept.
func (s *supervisor) changePort(ctx context.Context, r rpc.PortRequest) (p api.Port, err error) {
	save := func(ports []api.Port) error { return s.store.SavePorts(s.id, ports) }
	what := "published: "
	if r.Remove {
		what = "not published any more: "
		p, err = s.ports.Remove(r.Port, save)
	} else {
		p, err = s.ports.Add(ctx, r.Port, save)
	}
	if err == nil {
		s.note(api.Event{Type: "port", Reason: what + p.String()})
	}
	return p, err
}
