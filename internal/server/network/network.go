// Package network holds the HTTP API's routes about what a VM reaches, and what reaches it: policy, record, published ports.
//
// Layer: part of the front server. It may import internal/server/web, lifecycle, api, errdefs.
package network

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

// VMs is what the routes need of lifecycle.Manager.
type VMs interface {
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	SetNetwork(ctx context.Context, id string, p api.NetworkPolicy) error
	Recorder
	Publisher
}

// Recorder tells what VMs asked and reached.
type Recorder interface {
	NetworkLog(ctx context.Context, id string, follow bool, each func(api.NetRecord) error) error
	NetworkStats(ctx context.Context, id string) (api.NetStats, error)
}

// Publisher changes what is published.
type Publisher interface {
	PublishPort(ctx context.Context, id string, p api.Port) (api.Port, error)
	UnpublishPort(ctx context.Context, id string, which api.Port) (api.Port, error)
}

// Waiter waits for services in a VM.
type Waiter interface {
	WaitPort(ctx context.Context, port int) error
}

// Routes adds the operations.
type Routes struct {
	VMs VMs
	// On calls f with the way into a running VM.
	On func(ctx context.Context, id string, f func(Waiter) error) error
}

const (
	network = "network"
	ports   = "ports"
	// waits is how long a service is waited for where nobody says.
	waits = 60 * time.Second
)

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	const policy, published = "/v1/sandboxes/{id}/network", "/v1/sandboxes/{id}/ports"
	web.Register(to, huma.Operation{OperationID: "get-network", Method: http.MethodGet, Path: policy, Tags: []string{network}, Summary: "Show what a VM may reach"}, r.get)
	web.Register(to, huma.Operation{
		OperationID: "set-network", Method: http.MethodPut, Path: policy, Tags: []string{network}, Summary: "Say what a VM may reach",
		Description: "In force when it is answered, also for connections that are open, and over restarts.",
	}, r.set)
	log := huma.Operation{
		OperationID: "network-log", Method: http.MethodGet, Path: policy + "/log", Tags: []string{network}, Summary: "Tell what a VM asked and reached",
		Description: "Oldest first. With follow it goes on until the VM ends.",
	}
	web.DescribeEvents(to, &log, map[string]any{"record": api.NetRecord{}})
	web.Raw(to, log, r.log)
	web.Register(to, huma.Operation{OperationID: "network-stats", Method: http.MethodGet, Path: policy + "/stats", Tags: []string{network}, Summary: "Add up what a VM asked and reached"}, r.stats)

	web.Register(to, huma.Operation{OperationID: "list-ports", Method: http.MethodGet, Path: published, Tags: []string{ports}, Summary: "List a VM's published ports"}, r.ports)
	web.Register(to, huma.Operation{
		OperationID: "publish-port", Method: http.MethodPost, Path: published, DefaultStatus: http.StatusCreated, Tags: []string{ports}, Summary: "Publish a TCP port of a VM on this host",
		Description: "On 127.0.0.1 unless address says otherwise. A port that is taken is a failure of class already_exists.",
	}, r.publish)
	web.Register(to, huma.Operation{OperationID: "unpublish-port", Method: http.MethodDelete, Path: published, DefaultStatus: http.StatusOK, Tags: []string{ports}, Summary: "End that, and the port's connections"}, r.unpublish)
	web.Register(to, huma.Operation{OperationID: "wait-port", Method: http.MethodPost, Path: published + "/wait", DefaultStatus: http.StatusNoContent, Tags: []string{ports}, Summary: "Wait until something in a VM listens on a TCP port"}, r.wait)
}

func (r Routes) vm(ctx context.Context, vm web.VM) (api.Sandbox, error) {
	if err := vm.Check(); err != nil {
		return api.Sandbox{}, err
	}
	return r.VMs.Inspect(ctx, vm.ID, false)
}

func (r Routes) get(ctx context.Context, in *struct{ web.VM }) (*web.Body[api.NetworkPolicy], error) {
	vm, err := r.vm(ctx, in.VM)
	return &web.Body[api.NetworkPolicy]{Body: vm.Network}, err
}

func (r Routes) set(ctx context.Context, in *struct {
	web.VM
	Body api.NetworkPolicy
},
) (*web.Body[api.NetworkPolicy], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	if err := r.VMs.SetNetwork(ctx, in.ID, in.Body); err != nil {
		return nil, err
	}
	return r.get(ctx, &struct{ web.VM }{in.VM})
}

func (r Routes) log(ctx context.Context, in *struct {
	web.VM
	Follow bool `query:"follow" doc:"go on as they come"`
}, a *web.Answer,
) error {
	if _, err := r.vm(ctx, in.VM); err != nil {
		return err
	}
	ctx, cancel := web.UntilStop(ctx)
	defer cancel()
	events := a.Events()
	defer events.Close()
	events.Finish(ctx, r.VMs.NetworkLog(ctx, in.ID, in.Follow, func(n api.NetRecord) error { return events.Send("record", n) }))
	return nil
}

func (r Routes) stats(ctx context.Context, in *struct{ web.VM }) (*web.Body[api.NetStats], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	s, err := r.VMs.NetworkStats(ctx, in.ID)
	s.Peers = append([]api.NetPeer{}, s.Peers...)
	return &web.Body[api.NetStats]{Body: s}, err
}

// PortList are the ports of one VM.
type PortList struct {
	Ports []api.Port `json:"ports"`
}

func (r Routes) ports(ctx context.Context, in *struct{ web.VM }) (*web.Body[PortList], error) {
	vm, err := r.vm(ctx, in.VM)
	return &web.Body[PortList]{Body: PortList{append([]api.Port{}, vm.Ports...)}}, err
}

func (r Routes) publish(ctx context.Context, in *struct {
	web.VM
	Body api.Port
},
) (*web.Body[api.Port], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	p, err := r.VMs.PublishPort(ctx, in.ID, in.Body)
	return &web.Body[api.Port]{Body: p}, err
}

func (r Routes) unpublish(ctx context.Context, in *struct {
	web.VM
	GuestPort int    `query:"guest_port" required:"true" minimum:"1" maximum:"65535" doc:"the VM's port"`
	HostPort  int    `query:"host_port" minimum:"0" maximum:"65535" doc:"this host's, where the VM's is published several times"`
	Address   string `query:"address" doc:"this host's, where that is so on several" example:"127.0.0.1"`
},
) (*web.Body[api.Port], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	which := api.Port{GuestPort: in.GuestPort, HostPort: in.HostPort, Address: in.Address}
	if err := which.Validate(); err != nil {
		return nil, err
	}
	p, err := r.VMs.UnpublishPort(ctx, in.ID, which)
	return &web.Body[api.Port]{Body: p}, err
}

// WaitRequest says which port, and how long.
type WaitRequest struct {
	Port      int   `json:"port" required:"true" minimum:"1" maximum:"65535"`
	TimeoutMs int64 `json:"timeout_ms,omitempty" minimum:"0" maximum:"86400000" doc:"default 60000"`
}

func (r Routes) wait(ctx context.Context, in *struct {
	web.VM
	Body WaitRequest
},
) (*struct{}, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	limit := waits
	if in.Body.TimeoutMs > 0 {
		limit = time.Duration(in.Body.TimeoutMs) * time.Millisecond
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errdefs.Timeout.Errorf("nothing in %s listens on port %d after %s", in.ID, in.Body.Port, limit))
	defer cancel()
	return nil, r.On(ctx, in.ID, func(g Waiter) error {
		err := g.WaitPort(ctx, in.Body.Port)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	})
}
