package main

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"

	"github.com/smolvm/smolvm/errdefs"
)

// agentFiles holds the guest agent where script/build has put it. The folder is committed with a README, so that a
// fresh clone compiles.
//
//go:embed agent
var agentFiles embed.FS

const agentFile = "agent/smolvm-guest"

// guestAgent returns the guest agent's program in files, once it is what this program was stamped with.
func guestAgent(files fs.FS, digest string) ([]byte, error) {
	b, err := fs.ReadFile(files, agentFile)
	if err != nil {
		return nil, errdefs.Host.Errorf("this smolvm was built without its guest agent: run script/build").WithRemedy("script/build")
	}
	if sum := sha256.Sum256(b); digest != "" && hex.EncodeToString(sum[:]) != digest {
		return nil, errdefs.Host.Errorf("the guest agent in this smolvm is not the one it was built with: run script/build").WithRemedy("script/build")
	}
	return b, nil
}
