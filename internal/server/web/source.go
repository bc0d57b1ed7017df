package web

import (
	"context"

	"github.com/smolvm/smolvm/errdefs"
)

// CheckSource refuses a secret's source from who asks over TCP: whoever starts the VM on this host would ask it.
func CheckSource(ctx context.Context, name, source string) error {
	if source == "" || !PeerOf(ctx).Remote {
		return nil
	}
	return errdefs.Denied.Errorf("secret %s: a source is a variable, a file or a command of this host, which nobody names over TCP", name).
		WithRemedy("find the value where you are, and send it in secret_values")
}
