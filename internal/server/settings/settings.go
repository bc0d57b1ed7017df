// Package settings holds the HTTP API's routes about what can be changed of a VM while it runs: its owner, its time to live, the
// environment of its commands, its secrets; and about images for logins by SSH.
//
// Layer: part of the front server. It may import internal/server/web, lifecycle, api, errdefs.
package settings

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

// VMs changes VMs.
type VMs interface {
	Own(ctx context.Context, id string, r api.OwnerRequest) error
	SetTTL(ctx context.Context, id string, ttl time.Duration) error
	SetEnv(ctx context.Context, id string, change api.EnvChange) (map[string]string, error)
	SetSecrets(ctx context.Context, id string, change api.SecretChange) error
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
}

// SSHImages lays out images for logins by SSH.
type SSHImages func(ctx context.Context, r api.SSHImageRequest, progress api.ProgressFunc) (api.SSHImage, error)

// Routes adds the operations.
type Routes struct {
	VMs VMs
	// Build may be nil: then there is no such operation.
	Build SSHImages
}

const tag = "settings"

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	op := func(id, method, path, summary, description string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary, Description: description, MaxBodyBytes: 8 << 20}
	}
	web.Register(to, op("set-owner", http.MethodPut, "/v1/sandboxes/{id}/owner", "Say who decides that a VM may go",
		"A lease is renewed so: it counts anew from each such request on, by a clock that does not jump."), r.setOwner)
	web.Register(to, op("set-ttl", http.MethodPut, "/v1/sandboxes/{id}/ttl", "Say how long a VM may run from now on",
		"0 = as long as it likes. Each later start begins the time anew."), r.setTTL)
	web.Register(to, op("get-env", http.MethodGet, "/v1/sandboxes/{id}/env", "Show the environment of a VM's commands", "Values are masked unless show is set."), r.env)
	web.Register(to, op("change-env", http.MethodPatch, "/v1/sandboxes/{id}/env", "Change the environment of a VM's commands",
		"It is kept, and holds for all commands and logins that are started from then on in a VM that runs. The answer has the whole, masked."), r.changeEnv)
	web.Register(to, op("get-secrets", http.MethodGet, "/v1/sandboxes/{id}/secrets", "Show a VM's secrets", "Who may get them, and where their values are found. Nobody shows values."), r.secrets)
	web.Register(to, op("change-secrets", http.MethodPatch, "/v1/sandboxes/{id}/secrets", "Give secrets of a VM other values",
		"Values are in use when the answer comes, if the VM runs, and are kept in no record. Sources are kept for the next starts; over TCP none may be given."), r.changeSecrets)
	if r.Build != nil {
		web.Long(to, op("build-ssh-image", http.MethodPost, "/v1/images/ssh", "Lay out the default image and the kernel as files, for logins with a key",
			"Over a unix socket only: the files are on this host."), r.build)
	}
}

type ownerInput struct {
	web.VM
	Body api.OwnerRequest
}

func (r Routes) setOwner(ctx context.Context, in *ownerInput) (*struct{}, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	if in.Body.Owner == "" {
		return nil, errdefs.Invalid.Errorf("owner: give keep, client or lease")
	}
	if in.Body.Owner == api.OwnerClient {
		peer := web.PeerOf(ctx)
		in.Body.ClientPID = cmp.Or(in.Body.ClientPID, peer.PID)
		if peer.Remote || in.Body.ClientPID == 0 {
			return nil, errdefs.Invalid.Errorf("owner: client is a process of the server's host, and who asks over TCP is none").WithRemedy("use owner lease")
		}
	}
	return nil, r.VMs.Own(ctx, in.ID, in.Body)
}

type ttlInput struct {
	web.VM
	Body struct {
		TTLMs *int64 `json:"ttl_ms" required:"true" minimum:"0" doc:"from now on; 0 = as long as it likes"`
	}
}

func (r Routes) setTTL(ctx context.Context, in *ttlInput) (*web.Body[api.Sandbox], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	if in.Body.TTLMs == nil || *in.Body.TTLMs > most {
		return nil, errdefs.Invalid.Errorf("ttl_ms: it must be given, and be at most %d", most)
	}
	if err := r.VMs.SetTTL(ctx, in.ID, time.Duration(*in.Body.TTLMs)*time.Millisecond); err != nil {
		return nil, err
	}
	vm, err := r.VMs.Inspect(ctx, in.ID, false)
	return &web.Body[api.Sandbox]{Body: vm}, err
}

// Environment is that of a VM's commands.
type Environment struct {
	Env map[string]string `json:"env"`
}

type envInput struct {
	web.VM
	Show bool `query:"show" doc:"the values too"`
}

func (r Routes) env(ctx context.Context, in *envInput) (*web.Body[Environment], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	vm, err := r.VMs.Inspect(ctx, in.ID, in.Show)
	if err == nil && vm.State == api.StateBroken {
		err = errdefs.Internal.Errorf("the VM %s is broken: %s", vm.ID, vm.Reason)
	}
	if err != nil {
		return nil, err
	}
	return environment(vm.Config.Env), nil
}

func environment(env map[string]string) *web.Body[Environment] {
	if env == nil {
		env = map[string]string{}
	}
	return &web.Body[Environment]{Body: Environment{env}}
}

type changeInput struct {
	web.VM
	Body api.EnvChange
}

func (r Routes) changeEnv(ctx context.Context, in *changeInput) (*web.Body[Environment], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	env, err := r.VMs.SetEnv(ctx, in.ID, in.Body)
	if err != nil {
		return nil, err
	}
	masked := map[string]string{}
	for name := range env {
		masked[name] = api.Masked
	}
	return environment(masked), nil
}

func (r Routes) build(ctx context.Context, in *struct{ Body api.SSHImageRequest }, progress api.ProgressFunc) (api.SSHImage, error) {
	if web.PeerOf(ctx).Remote {
		return api.SSHImage{}, errdefs.Denied.Errorf("images for SSH are files of the server's host").WithRemedy("ask over the server's unix socket: smolvm serve --socket PATH")
	}
	return r.Build(ctx, in.Body, progress)
}
