package settings

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

// Secrets are those of a VM, without their values.
type Secrets struct {
	Secrets []api.Secret `json:"secrets"`
}

func (r Routes) secrets(ctx context.Context, in *struct{ web.VM }) (*web.Body[Secrets], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	vm, err := r.VMs.Inspect(ctx, in.ID, false)
	if err == nil && vm.State == api.StateBroken {
		err = errdefs.Internal.Errorf("the VM %s is broken: %s", vm.ID, vm.Reason)
	}
	if err != nil {
		return nil, err
	}
	return &web.Body[Secrets]{Body: Secrets{append([]api.Secret{}, vm.Config.Secrets...)}}, nil
}

type secretsInput struct {
	web.VM
	Body api.SecretChange
}

func (r Routes) changeSecrets(ctx context.Context, in *secretsInput) (*web.Body[Secrets], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	for name, source := range in.Body.Sources {
		if err := web.CheckSource(ctx, name, source); err != nil {
			return nil, err
		}
	}
	if err := r.VMs.SetSecrets(ctx, in.ID, in.Body); err != nil {
		return nil, err
	}
	return r.secrets(ctx, &struct{ web.VM }{in.VM})
}
