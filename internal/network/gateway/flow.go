package gateway

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/gateway/piece"
	"github.com/smolvm/smolvm/internal/network/gateway/proxy"
)

// flow is a connection of the guest's, from its first packet to its end.
type flow struct {
	table *table
	want  network.Flow // by name where it has one
	begin time.Time
	ctx   context.Context //nolint:containedctx // lasts as long as the flow does
	stop  context.CancelCauseFunc
	kind  atomic.Uint32  // how it is served
	look  *proxy.Session // of one that is looked into

	in, out atomic.Int64 // bytes to and from the guest
	last    atomic.Int64 // when bytes moved, by the table's clock
	sending atomic.Bool  // it waits for the guest to read
	limit   atomic.Int64 // how long none may move, in nanoseconds

	mu     sync.Mutex
	addr   netip.Addr // where it really leads, once that is known
	rule   string
	reset  func()     // ends both sides at once; nil before there are any
	queued func() int // bytes that the stack holds for it
}

// errReset is why a flow ended that we ended.
type errReset string

func (e errReset) Error() string { return string(e) }

func (f *flow) touch() { f.last.Store(int64(f.table.clock())) }

// connected says where the flow leads and how to end it. It is false when it was ended meanwhile.
func (f *flow) connected(addr netip.Addr, rule string, reset func(), queued func() int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return false
	}
	f.addr, f.rule, f.reset, f.queued = addr, rule, reset, queued
	return true
}

// abort ends a flow for a reason of ours.
func (f *flow) abort(why errReset) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop(why)
	if f.reset != nil {
		f.reset()
	}
}

// allowed asks the policy about a flow that is under way.
func (f *flow) allowed(p *network.Policy) bool {
	f.mu.Lock()
	want := f.want
	if f.addr.IsValid() {
		want.Addr = f.addr
	}
	f.mu.Unlock()
	v := p.Flow(want)
	if v.Allow || want.Name == "" {
		is := f.kind.Load()
		return v.Allow && (is == unknown || is == kindOf(want, v))
	}
	// To the host's loopback, the address is no part of the question.
	want.Addr = netip.Addr{}
	v = p.Flow(want)
	return v.Allow && v.Host
}

// How a flow is served. One that would be served otherwise under a new policy is ended.
const (
	unknown uint32 = iota
	spliced
	opaque // spliced, once it has said in the open for whom it is
	looked // its requests are decided
)

func kindOf(f network.Flow, v network.Verdict) uint32 {
	switch {
	case f.Proto == network.UDP:
	case v.HTTP:
		return looked
	case v.Opaque && f.Port == portHTTPS: // on other ports servers may speak first
		return opaque
	}
	return spliced
}

func (f *flow) session() *proxy.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.look
}

func (f *flow) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queued == nil {
		return 0
	}
	return f.queued()
}

// record is the flow's line in the audit.
func (f *flow) record() api.NetRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := recordOf(f.want, f.begin)
	addr := f.addr
	if f.look != nil {
		addr = f.look.Addr()
	}
	if addr.IsValid() {
		r.Addr = addr.String()
	}
	r.Verdict, r.Rule = "allow", f.rule
	r.BytesIn, r.BytesOut, r.DurationMs = f.in.Load(), f.out.Load(), time.Since(f.begin).Milliseconds()
	return r
}

func recordOf(f network.Flow, begin time.Time) api.NetRecord {
	r := api.NetRecord{Time: begin, Kind: protoName(f.Proto), Proto: protoName(f.Proto), Name: f.Name, Port: int(f.Port), Verdict: "deny"}
	if f.Addr.IsValid() {
		r.Addr = f.Addr.String()
	}
	return r
}

func protoName(p network.Proto) string {
	if p == network.UDP {
		return "udp"
	}
	return "tcp"
}

// table holds the flows that are open. It never holds more than max.
type table struct {
	mu    sync.Mutex
	max   int
	flows map[*flow]struct{}
	wg    sync.WaitGroup
	// Flows that are looked into have no descriptor of their own; their connections to the outside have.
	looked, upstream int

	buffers piece.Pool
	// clock is the time since the table was made. It goes on evenly when the host's clock is set.
	clock func() time.Duration

	total   atomic.Int64
	in, out atomic.Int64 // of flows that have ended
}

func newTable() *table {
	begin := time.Now()
	return &table{flows: map[*flow]struct{}{}, clock: func() time.Duration { return time.Since(begin) }}
}

// add makes a flow; nil when there is no room.
func (t *table) add(ctx context.Context, want network.Flow, idle time.Duration) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.flows) >= t.max || len(t.flows)-t.looked+t.upstream >= t.max {
		return nil
	}
	f := &flow{table: t, want: want, begin: time.Now()}
	f.ctx, f.stop = context.WithCancelCause(ctx)
	f.limit.Store(int64(idle))
	f.touch()
	t.flows[f] = struct{}{}
	t.total.Add(1)
	t.wg.Add(1)
	return f
}

// remove ends a flow's place.
func (t *table) remove(f *flow) {
	f.stop(errReset("ended"))
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.flows[f]; !ok {
		return
	}
	delete(t.flows, f)
	if f.look != nil {
		t.looked--
	}
	t.in.Add(f.in.Load())
	t.out.Add(f.out.Load())
	t.wg.Done()
}

// lookInto makes a flow one that is looked into.
func (t *table) lookInto(f *flow, s *proxy.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look = s
	t.looked++
}

// reserve takes a place for a connection to the outside; it is false when there is none.
func (t *table) reserve() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.flows)-t.looked+t.upstream >= t.max {
		return false
	}
	t.upstream++
	return true
}

func (t *table) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.upstream--
}

// open are the flows that are open now.
func (t *table) open() []*flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*flow, 0, len(t.flows))
	for f := range t.flows {
		all = append(all, f)
	}
	return all
}

func (t *table) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

func (t *table) setMax(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.max = n
}
