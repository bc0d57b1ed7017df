package supervisor

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/audit"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/uplink"
)

// startNetwork opens the audit and starts the gateway, which lets nothing through before it has the policy. monitor is the
// monitor's user id: the gateway's is another one, so that neither can touch the other.
func (s *supervisor) startNetwork(ctx context.Context, monitor uint32) error {
	record, err := audit.Open(s.store.Dir(s.id))
	if err != nil {
		return err
	}
	s.undo.Add(func() { _ = record.Close() })
	s.record = record.Add
	o := uplink.Options{
		Names: s.store.Path(s.id, store.NamesFile), Record: record.Add, Log: s.log,
		Ended: func(why string) { s.note(api.Event{Type: "gateway", Reason: why + "; it is started again"}) },
	}
	if monitor != 0 {
		o.UID = monitor + maxUIDs
	}
	if s.uplink, err = uplink.Start(context.WithoutCancel(ctx), o); err != nil {
		return err
	}
	s.undo.Add(func() { _ = s.uplink.Close() })
	return nil
}
