package smolvm

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// VM is a microVM. It is safe for concurrent use.
type VM struct {
	c         *Client
	own       bool // the client is ours
	id        string
	temporary bool
	progress  api.ProgressFunc
	secrets   api.SecretValues
	letGo     context.CancelFunc // ends the renewal of a lease
	ctx       context.Context    //nolint:containedctx // of its making, for its values

	mu    sync.Mutex
	fresh bool // New made it, and nobody has started it
}

// closing bounds what Close asks the server for.
const closing = 60 * time.Second

func open(ctx context.Context, opts []Option) (*VM, error) {
	o := optionsOf(opts)
	vm := &VM{c: o.client, own: o.client == nil, temporary: o.temporary, progress: o.progress, secrets: maps.Clone(o.secrets), ctx: ctx, letGo: func() {}}
	if vm.own {
		c, err := newClient(o)
		if err != nil {
			return nil, err
		}
		vm.c = c
	}
	if err := vm.c.check(ctx); err != nil {
		vm.release()
		return nil, err
	}
	return vm, nil
}

func (vm *VM) release() {
	vm.letGo()
	if vm.own {
		_ = vm.c.Close()
	}
}

// New makes a VM. Start, or the first command, boots it.
func New(ctx context.Context, cfg Config, opts ...Option) (*VM, error) {
	vm, err := open(ctx, opts)
	if err != nil {
		return nil, err
	}
	req := api.CreateRequest{Config: cfg, StartRequest: api.StartRequest{SecretValues: vm.secrets}}
	for _, path := range []*string{&req.RootfsPath, &req.KernelPath} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil { // the server's directory is another one
			vm.release()
			return nil, errdefs.Host.Errorf("find %s: %w", *path, err)
		}
	}
	if vm.temporary {
		req.OwnerRequest = vm.claim()
	}
	var box api.Sandbox
	if err := vm.c.long(ctx, "/sandboxes", req, &box, vm.progress); err != nil {
		vm.release()
		return nil, err
	}
	vm.id, vm.fresh = box.ID, true
	vm.hold()
	return vm, nil
}

// hold renews the lease of a temporary VM, where it needs one, until letGo.
func (vm *VM) hold() {
	if !vm.temporary || !vm.c.remote {
		return
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(vm.ctx))
	vm.letGo = stop
	go vm.renew(ctx)
}

const lease = 60 * time.Second

// claim says that the VM is this process's: by its number on this host, and else for as long as it says so.
func (vm *VM) claim() api.OwnerRequest {
	if vm.c.remote {
		return api.OwnerRequest{Owner: api.OwnerLease, LeaseMs: lease.Milliseconds()}
	}
	return api.OwnerRequest{Owner: api.OwnerClient, ClientPID: os.Getpid()}
}

func (vm *VM) renew(ctx context.Context) {
	t := time.NewTicker(lease / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			call, cancel := context.WithTimeout(ctx, lease/4)
			_ = vm.ask(call, http.MethodPut, "/owner", vm.claim(), nil) // the next one may succeed
			cancel()
		}
	}
}

// FromID returns a VM that is there.
func FromID(ctx context.Context, id string, opts ...Option) (*VM, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, err
	}
	vm, err := open(ctx, opts)
	if err != nil {
		return nil, err
	}
	vm.id = id
	if vm.temporary {
		err = vm.ask(ctx, http.MethodPut, "/owner", vm.claim(), nil)
	} else {
		_, err = vm.Info(ctx)
	}
	if err != nil {
		vm.release()
		return nil, err
	}
	vm.hold()
	return vm, nil
}

// ID is the VM's name.
func (vm *VM) ID() string { return vm.id }

// at is a path below the VM's.
func (vm *VM) at(path string) string { return "/sandboxes/" + url.PathEscape(vm.id) + path }

func (vm *VM) ask(ctx context.Context, method, path string, body, into any) error {
	return vm.c.ask(ctx, method, vm.at(path), body, into)
}

// Start boots the VM. One that runs stays as it is.
func (vm *VM) Start(ctx context.Context) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.start(ctx)
}

func (vm *VM) start(ctx context.Context) error {
	var box api.Sandbox
	err := vm.c.long(ctx, vm.at("/start"), api.StartRequest{SecretValues: vm.secrets}, &box, vm.progress)
	if errdefs.Is(err, errdefs.WrongState) {
		if box, ierr := vm.Info(ctx); ierr == nil && box.State == api.StateRunning {
			err = nil
		}
	}
	if err == nil {
		vm.fresh = false
	}
	return err
}

// ready starts a VM that was just made.
func (vm *VM) ready(ctx context.Context) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.fresh {
		return nil
	}
	return vm.start(ctx)
}

// SetSecrets gives secrets of the VM other values: requests get them from then on, and so do the next starts by this VM.
func (vm *VM) SetSecrets(ctx context.Context, values map[string]string) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	change := api.SecretChange{Values: api.SecretValues{}}
	for name, v := range values {
		change.Values[name] = api.SecretValue(v)
	}
	err := vm.ask(ctx, http.MethodPatch, "/secrets", change, nil)
	if errdefs.Is(err, errdefs.WrongState) {
		err = change.Validate() // it does not run: the next start has them
	}
	if err == nil {
		if vm.secrets == nil {
			vm.secrets = api.SecretValues{}
		}
		maps.Copy(vm.secrets, change.Values)
	}
	return err
}

// Stop ends the VM; its disk stays, and Start boots it again. The guest has 10 s for an orderly end.
func (vm *VM) Stop(ctx context.Context) error {
	return vm.ask(ctx, http.MethodPost, "/stop", struct{}{}, nil)
}

// Delete removes the VM with its disk; one that runs is stopped first.
func (vm *VM) Delete(ctx context.Context) error {
	return vm.ask(ctx, http.MethodDelete, "?force=true", nil, nil)
}

// Close lets go of the VM: a temporary one is stopped and deleted, every other one goes on.
func (vm *VM) Close() error {
	defer vm.release()
	if !vm.temporary {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(vm.ctx), closing)
	defer cancel()
	if err := vm.Delete(ctx); err != nil && !errdefs.Is(err, errdefs.NotFound) {
		return err
	}
	return nil
}

// Info tells all about the VM. Values of its environment are masked.
func (vm *VM) Info(ctx context.Context) (api.Sandbox, error) {
	var box api.Sandbox
	err := vm.ask(ctx, http.MethodGet, "", nil, &box)
	return box, err
}

// Status is the VM's state now.
func (vm *VM) Status(ctx context.Context) (api.State, error) {
	box, err := vm.Info(ctx)
	return box.State, err
}

// ExposeLocal publishes a TCP port of the VM on 127.0.0.1 and returns its number there. hostPort 0 is any that is free; one that
// is taken is an error.
func (vm *VM) ExposeLocal(ctx context.Context, guestPort, hostPort int) (int, error) {
	var p api.Port
	err := vm.ask(ctx, http.MethodPost, "/ports", map[string]int{"guest_port": guestPort, "host_port": hostPort}, &p)
	return p.HostPort, err
}

// UnexposeLocal ends that.
func (vm *VM) UnexposeLocal(ctx context.Context, guestPort int) error {
	return vm.ask(ctx, http.MethodDelete, "/ports?guest_port="+strconv.Itoa(guestPort), nil, nil)
}

// WaitForPort returns when something in the VM listens on a TCP port. The end of ctx is the limit.
func (vm *VM) WaitForPort(ctx context.Context, port int) error {
	if err := vm.ready(ctx); err != nil {
		return err
	}
	body := map[string]int64{"port": int64(port)}
	if end, there := ctx.Deadline(); there {
		body["timeout_ms"] = max(1, time.Until(end).Milliseconds())
	}
	return vm.ask(ctx, http.MethodPost, "/ports/wait", body, nil)
}
