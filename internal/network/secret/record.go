package secret

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Enroll gives a new VM's secrets their placeholders, and puts these into its environment. Of values it uses the lengths, as
// far as they are known already.
func Enroll(cfg api.Config, values api.SecretValues) (api.Config, error) {
	if err := known(cfg.Secrets, values); err != nil {
		return cfg, err
	}
	if len(cfg.Secrets) == 0 {
		return cfg, nil
	}
	env := map[string]string{}
	maps.Copy(env, cfg.Env)
	cfg.Secrets = slices.Clone(cfg.Secrets)
	for i := range cfg.Secrets {
		s := &cfg.Secrets[i]
		if v, ok := values[s.Name]; ok {
			if err := v.Validate(s.Name); err != nil {
				return cfg, err
			}
		}
		s.Placeholder = Placeholder(s.Prefix, len(values[s.Name]))
		env[s.Name] = s.Placeholder
	}
	cfg.Env = env
	return cfg, nil
}

// known refuses values of what is no secret of a VM.
func known(list []api.Secret, values api.SecretValues) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.ContainsFunc(list, func(s api.Secret) bool { return s.Name == name }) {
			return errdefs.Invalid.Errorf("the VM has no secret %q; it has %s", name, names(list)).WithRemedy("secrets are named when a VM is made: smolvm create --secret NAME=env:VARIABLE@HOST")
		}
	}
	return nil
}

func names(list []api.Secret) string {
	if len(list) == 0 {
		return "none"
	}
	var all []string
	for _, s := range list {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}

// Match joins a VM's secrets with their values, all of which must be there.
func Match(id string, list []api.Secret, values api.SecretValues) ([]Secret, error) {
	if err := known(list, values); err != nil {
		return nil, err
	}
	var all []Secret
	var missing []string
	for _, s := range list {
		v, ok := values[s.Name]
		if !ok {
			missing = append(missing, strings.TrimSuffix(fmt.Sprintf("%s (%s)", s.Name, s.Source), " ()"))
			continue
		}
		all = append(all, Secret{Name: s.Name, Placeholder: s.Placeholder, Value: string(v), Hosts: s.Hosts, Query: s.Query})
	}
	if len(missing) > 0 {
		return nil, errdefs.Invalid.Errorf("the VM %s starts with the values of its secrets only, which are kept nowhere: %s", id, strings.Join(missing, ", ")).
			WithRemedy("smolvm start %s, where these sources are; the HTTP API takes them as secret_values", id)
	}
	_, err := New(all) // which looks at all of them
	return all, err
}

// Rotate returns the secrets with other values, where there are any.
func Rotate(list []Secret, values api.SecretValues) ([]Secret, error) {
	next := slices.Clone(list)
	for name, v := range values {
		i := slices.IndexFunc(next, func(s Secret) bool { return s.Name == name })
		if i < 0 {
			var about []api.Secret
			for _, s := range list {
				about = append(about, api.Secret{Name: s.Name})
			}
			return nil, known(about, values)
		}
		next[i].Value = string(v)
	}
	_, err := New(next)
	return next, err
}

// Hosts are all names that secrets are for, sorted: the policy terminates what goes there.
func Hosts(list []api.Secret) []string {
	var all []string
	for _, s := range list {
		all = append(all, s.Hosts...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
