// Package sandboxes holds the HTTP API's routes about VMs as a whole: create, list, get, start, stop, pause, delete.
//
// Layer: part of the front server. It may import internal/server/{hostpath,web}, lifecycle, api, errdefs.
package sandboxes

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/hostpath"
	"github.com/smolvm/smolvm/internal/server/web"
)

// VMs makes, starts, stops and removes VMs.
type VMs interface {
	Create(ctx context.Context, cfg api.Config, o lifecycle.CreateOptions) (api.Sandbox, error)
	StartWith(ctx context.Context, id string, values api.SecretValues, progress api.ProgressFunc) (api.Sandbox, error)
	Stop(ctx context.Context, id string, o lifecycle.StopOptions) error
	Remove(ctx context.Context, id string, force bool) error
	Viewer
}

// Changer changes what does not run.
type Changer interface {
	Update(ctx context.Context, id string, limits api.Limits) (api.Sandbox, error)
	Rename(ctx context.Context, id, to string) error
}

// Viewer tells what there is, and stops processors.
type Viewer interface {
	List(ctx context.Context, all bool) ([]api.Sandbox, error)
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
	Changer
}

// Routes adds the operations.
type Routes struct {
	VMs VMs
	// Paths are the files of this host that requests over TCP may name.
	Paths hostpath.Allowed
}

const tag = "sandboxes"

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	web.Long(to, huma.Operation{
		OperationID: "create-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes", DefaultStatus: http.StatusCreated, Tags: []string{tag},
		Summary: "Create a VM", Description: "Makes the record of a VM, and boots it when start is set. The image and the kernel are made first where they are absent, which takes minutes: ask for events to hear of it.",
	}, r.create)
	web.Register(to, huma.Operation{OperationID: "list-sandboxes", Method: http.MethodGet, Path: "/v1/sandboxes", Tags: []string{tag}, Summary: "List VMs"}, r.list)
	web.Register(to, huma.Operation{OperationID: "get-sandbox", Method: http.MethodGet, Path: "/v1/sandboxes/{id}", Tags: []string{tag}, Summary: "Show a VM"}, r.get)
	web.Register(to, huma.Operation{OperationID: "delete-sandbox", Method: http.MethodDelete, Path: "/v1/sandboxes/{id}", Tags: []string{tag}, Summary: "Delete a VM with its disk"}, r.remove)
	web.Register(to, huma.Operation{
		OperationID: "update-sandbox", Method: http.MethodPatch, Path: "/v1/sandboxes/{id}", Tags: []string{tag}, Summary: "Change the limits of a VM, from its next start on",
		Description: "What is not named stays as it is; a disk only grows.",
	}, r.update)
	web.Register(to, huma.Operation{OperationID: "rename-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/rename", Tags: []string{tag}, Summary: "Give a VM that does not run another id"}, r.rename)
	web.Long(to, huma.Operation{OperationID: "start-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/start", Tags: []string{tag}, Summary: "Boot a VM"}, r.start)
	web.Register(to, huma.Operation{OperationID: "stop-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/stop", Tags: []string{tag}, Summary: "Stop a VM; its disk stays"}, r.stop)
	web.Register(to, huma.Operation{OperationID: "pause-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/pause", Tags: []string{tag}, Summary: "Stop a VM's processors"}, r.pause)
	web.Register(to, huma.Operation{OperationID: "unpause-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/unpause", Tags: []string{tag}, Summary: "Let a VM's processors go on"}, r.unpause)
}

type createInput struct{ Body api.CreateRequest }

func (r Routes) create(ctx context.Context, in *createInput, progress api.ProgressFunc) (api.Sandbox, error) {
	req := in.Body
	if err := req.Validate(); err != nil {
		return api.Sandbox{}, err
	}
	if err := r.paths(ctx, &req.Config); err != nil {
		return api.Sandbox{}, err
	}
	for _, s := range req.Secrets {
		if err := web.CheckSource(ctx, s.Name, s.Source); err != nil {
			return api.Sandbox{}, err
		}
	}
	o := lifecycle.CreateOptions{Owner: req.Owner, Client: req.ClientPID, Lease: time.Duration(req.LeaseMs) * time.Millisecond, Progress: progress, Start: req.Start, Secrets: req.SecretValues}
	if req.Owner == api.OwnerClient {
		peer := web.PeerOf(ctx)
		o.Client = cmp.Or(o.Client, peer.PID)
		if peer.Remote || o.Client == 0 {
			return api.Sandbox{}, errdefs.Invalid.Errorf("owner: client is a process of the server's host, and who asks over TCP is none")
		}
	}
	vm, err := r.VMs.Create(ctx, req.Config, o)
	if err != nil || !req.Start {
		return vm, err
	}
	started, err := r.VMs.StartWith(ctx, vm.ID, req.SecretValues, progress)
	if err != nil {
		_ = r.VMs.Remove(context.WithoutCancel(ctx), vm.ID, true) // the failure is what the client wants to hear
		return api.Sandbox{}, err
	}
	return started, nil
}

// paths lets who asks over TCP name only those files of this host that he may.
func (r Routes) paths(ctx context.Context, cfg *api.Config) error {
	if !web.PeerOf(ctx).Remote {
		return nil
	}
	for name, path := range map[string]*string{"rootfs_path": &cfg.RootfsPath, "kernel_path": &cfg.KernelPath} {
		if *path == "" {
			continue
		}
		real, err := r.Paths.Check(*path)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*path = real
	}
	return nil
}

type listInput struct {
	All bool `query:"all" doc:"those that do not run too"`
}

// SandboxList is a list of VMs.
type SandboxList struct {
	Sandboxes []api.Sandbox `json:"sandboxes"`
}

func (r Routes) list(ctx context.Context, in *listInput) (*web.Body[SandboxList], error) {
	all, err := r.VMs.List(ctx, in.All)
	if err != nil {
		return nil, err
	}
	if all == nil {
		all = []api.Sandbox{}
	}
	return &web.Body[SandboxList]{Body: SandboxList{all}}, nil
}

type getInput struct {
	web.VM
	ShowEnv bool `query:"show_env" doc:"the values of variables, which are masked otherwise"`
}

func (r Routes) get(ctx context.Context, in *getInput) (*web.Body[api.Sandbox], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	vm, err := r.VMs.Inspect(ctx, in.ID, in.ShowEnv)
	return &web.Body[api.Sandbox]{Body: vm}, err
}

func (r Routes) update(ctx context.Context, in *struct {
	web.VM
	Body api.Limits
},
) (*web.Body[api.Sandbox], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	vm, err := r.VMs.Update(ctx, in.ID, in.Body)
	return &web.Body[api.Sandbox]{Body: vm}, err
}

// Rename says the other id.
type Rename struct {
	ID string `json:"id" required:"true"`
}

func (r Routes) rename(ctx context.Context, in *struct {
	web.VM
	Body Rename
},
) (*web.Body[api.Sandbox], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	if err := api.ValidateID(in.Body.ID); err != nil {
		return nil, err
	}
	if err := r.VMs.Rename(ctx, in.ID, in.Body.ID); err != nil {
		return nil, err
	}
	return r.get(ctx, &getInput{VM: web.VM{ID: in.Body.ID}})
}

type removeInput struct {
	web.VM
	Force bool `query:"force" doc:"a VM that runs too"`
}

func (r Routes) remove(ctx context.Context, in *removeInput) (*struct{}, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	return nil, r.VMs.Remove(ctx, in.ID, in.Force)
}

type startInput struct {
	web.VM
	Body *api.StartRequest
}

func (r Routes) start(ctx context.Context, in *startInput, progress api.ProgressFunc) (api.Sandbox, error) {
	if err := in.Check(); err != nil {
		return api.Sandbox{}, err
	}
	var values api.SecretValues
	if in.Body != nil {
		values = in.Body.SecretValues
	}
	return r.VMs.StartWith(ctx, in.ID, values, progress)
}

type stopInput struct {
	web.VM
	Body *struct {
		GraceMs int64 `json:"grace_ms,omitempty" minimum:"0" doc:"for the guest's orderly end; 0 = 10 s"`
		Kill    bool  `json:"kill,omitempty" doc:"no orderly end"`
	}
}

func (r Routes) stop(ctx context.Context, in *stopInput) (*web.Body[api.Sandbox], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	var o lifecycle.StopOptions
	if in.Body != nil {
		o.Grace, o.Kill = time.Duration(in.Body.GraceMs)*time.Millisecond, in.Body.Kill
	}
	if err := r.VMs.Stop(ctx, in.ID, o); err != nil {
		return nil, err
	}
	return r.get(ctx, &getInput{VM: in.VM})
}

func (r Routes) pause(ctx context.Context, in *struct{ web.VM }) (*struct{}, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	return nil, r.VMs.Pause(ctx, in.ID)
}

func (r Routes) unpause(ctx context.Context, in *struct{ web.VM }) (*struct{}, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	return nil, r.VMs.Unpause(ctx, in.ID)
}
