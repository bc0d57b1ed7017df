package smolvm

import (
	"github.com/smolvm/smolvm/api"
)

// Config is what a VM is made of. Zero values mean the default.
type Config = api.Config

// Option changes what New, FromID and NewClient do.
type Option func(*options)

type options struct {
	client    *Client
	temporary bool
	binary    string
	home      string
	host      string
	token     string
	progress  api.ProgressFunc
	secrets   api.SecretValues
}

// Temporary binds the VM to this process: when Close is called, or the process ends in whatever way, the VM is stopped and
// deleted.
func Temporary() Option { return func(o *options) { o.temporary = true } }

// WithClient has the VM share a client, and with it a private server, with others. Its owner closes it.
func WithClient(c *Client) Option { return func(o *options) { o.client = c } }

// WithBinary names the program smolvm that becomes the private server.
func WithBinary(path string) Option { return func(o *options) { o.binary = path } }

// WithHome has the private server keep its VMs in a directory of their own, instead of SMOLVM_HOME.
func WithHome(dir string) Option { return func(o *options) { o.home = dir } }

// WithHost names a server that others share, as SMOLVM_HOST and SMOLVM_TOKEN do: unix:///PATH, https://HOST:PORT, or
// http://127.0.0.1:PORT. A unix socket needs no token.
func WithHost(host, token string) Option {
	return func(o *options) { o.host, o.token = host, token }
}

// WithProgress has f told what takes its time: images, kernels, boots.
func WithProgress(f func(api.Progress)) Option { return func(o *options) { o.progress = f } }

// WithSecrets gives the values of Config.Secrets, by their names. They are sent with each start, and kept nowhere but in memory:
// a VM that FromID finds and Start boots needs them again.
func WithSecrets(values map[string]string) Option {
	return func(o *options) {
		o.secrets = api.SecretValues{}
		for name, v := range values {
			o.secrets[name] = api.SecretValue(v)
		}
	}
}

func optionsOf(all []Option) options {
	var o options
	for _, set := range all {
		set(&o)
	}
	return o
}
