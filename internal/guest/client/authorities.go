package client

import (
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/sys/cacert"
)

// Authorities are certificates (DER) as a guest takes them: reading them would cost it more than it costs us.
func Authorities(roots [][]byte) ([]*proto.Authority, error) {
	out := make([]*proto.Authority, 0, len(roots))
	for _, der := range roots {
		hash, err := cacert.Hash(der)
		if err != nil {
			return nil, errdefs.Host.Errorf("an authority that the host trusts: %w", err).WithRemedy("--no-host-cas")
		}
		out = append(out, &proto.Authority{Pem: cacert.PEM(der), SubjectHash: hash})
	}
	return out, nil
}
