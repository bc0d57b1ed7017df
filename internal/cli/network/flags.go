// Package network is what the command line knows of a VM's network: the flags and the file that say what it may reach, and
// the commands that show and change it.
//
// Layer: part of the front cli. It may import internal/cli/{show,value}, api, errdefs.
package network

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Flags are the flags that make a policy.
type Flags struct {
	mode  string
	rules []api.NetworkRule // in the order of the command line: the first that matches decides
	file  string
	dns   []string
	rate  rate

	conns, flows, questions count
}

// limits are the flags that bound what a VM may use, each with what it is and where it goes.
func (n *Flags) limits(p *api.NetworkPolicy) []limit {
	return []limit{
		{"net-max-conns", "at most `N` connections at once (default 4096)", &n.conns, api.MaxConnsLimit, &p.MaxConns},
		{"net-max-new", "at most `N` new connections per second (default 2000)", &n.flows, api.MaxPerSecLimit, &p.MaxNewPerSec},
		{"net-max-dns", "at most `N` questions for names per second (default 500)", &n.questions, api.MaxPerSecLimit, &p.MaxDNSPerSec},
	}
}

type limit struct {
	flag, what string
	from       *count
	max        int
	to         *int
}

// others are the flags beside the limits.
func others() []string { return []string{"net", "allow", "deny", "policy", "dns", "net-rate"} }

// Add adds them to a command.
func (n *Flags) Add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.mode, "net", "", "`MODE` of the network: open (the public internet), none, allow (only what --allow says)")
	f.Var(&ruleFlag{n, api.RuleAllow}, "allow", "reach only this and what else is allowed: HOST[:PORTS][/udp], *.HOST, ADDRESS or RANGE; HOST=GET:/v1/** only such requests; HOST=opaque without looking into them")
	f.Var(&ruleFlag{n, api.RuleDeny}, "deny", "do not reach this, in the same form; of --allow and --deny the first that matches decides")
	f.StringVar(&n.file, "policy", "", "read the network's policy from a YAML `FILE`")
	f.StringArrayVar(&n.dns, "dns", nil, "`ADDRESS[:PORT]` of the resolver for the VM's names (default $SMOLVM_DNS, else the host's)")
	f.Var(&n.rate, "net-rate", "at most so many bytes per second, each way: 500k, 10m")
	for _, l := range n.limits(&api.NetworkPolicy{}) {
		l.from.max = l.max
		f.Var(l.from, l.flag, l.what)
		_ = cmd.RegisterFlagCompletionFunc(l.flag, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("net", cobra.FixedCompletions([]string{"open", "none", "allow"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("allow", completeRule)
	for _, name := range []string{"deny", "dns", "net-rate"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.MarkFlagFilename("policy", "yaml", "yml", "json")
}

// completeRule offers what may stand behind a host's "=".
func completeRule(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	host, _, asks := strings.Cut(begun, "=")
	if !asks || host == "" || strings.Contains(begun[len(host):], ":") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	before := begun[:strings.LastIndexAny(begun, "=,")+1]
	var out []cobra.Completion
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		out = append(out, before+method)
	}
	if before == host+"=" {
		out = append(out, before+"*:/", cobra.CompletionWithDesc(before+"opaque", "do not look into it"))
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// Given reports whether one of them was used.
func (n *Flags) Given(cmd *cobra.Command) bool {
	names := others()
	for _, l := range n.limits(&api.NetworkPolicy{}) {
		names = append(names, l.flag)
	}
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// Policy makes a policy of the flags.
func (n *Flags) Policy(cmd *cobra.Command) (api.NetworkPolicy, error) {
	var p api.NetworkPolicy
	if cmd.Flags().Changed("policy") {
		if n.mode != "" || len(n.rules) > 0 {
			return p, errdefs.Invalid.Errorf("%s: --policy excludes --net, --allow and --deny", cmd.Name()).WithRemedy("write the rules into the file")
		}
		var err error
		if p, err = readFile(n.file); err != nil {
			return p, err
		}
	} else {
		p.Mode, p.Rules = n.modeOf(cmd), n.rules
	}
	if len(n.dns) > 0 {
		p.DNS = n.dns
	}
	if n.rate > 0 {
		p.RateKBps = int(n.rate)
	}
	for _, l := range n.limits(&p) {
		if l.from.n > 0 {
			*l.to = l.from.n
		}
	}
	p = p.WithDefaults()
	return p, p.Validate()
}

// modeOf is the mode that is given, or that the rules mean: who allows something wants nothing else.
func (n *Flags) modeOf(cmd *cobra.Command) api.NetworkMode {
	if cmd.Flags().Changed("net") {
		return api.NetworkMode(n.mode)
	}
	for _, r := range n.rules {
		if r.Action == api.RuleAllow {
			return api.NetAllow
		}
	}
	return api.NetOpen
}

// ruleFlag adds a rule each time that it is given.
type ruleFlag struct {
	to     *Flags
	action api.RuleAction
}

// String implements pflag.Value.
func (r *ruleFlag) String() string { return "" }

// Type implements pflag.Value.
func (r *ruleFlag) Type() string { return "RULE" }

// Set implements pflag.Value.
func (r *ruleFlag) Set(text string) error {
	rule, err := api.ParseRule(r.action, text)
	if err != nil {
		return err
	}
	r.to.rules = append(r.to.rules, rule)
	return nil
}

// rate is a flag's value: kilobytes per second.
type rate int

// String implements pflag.Value.
func (r *rate) String() string {
	if *r == 0 {
		return ""
	}
	return fmt.Sprintf("%dk", *r)
}

// Type implements pflag.Value.
func (r *rate) Type() string { return "rate" }

// Set implements pflag.Value.
func (r *rate) Set(text string) error {
	n, err := units.FromHumanSize(text)
	if err != nil || n < units.KB || n/units.KB > api.MaxRateKBps {
		return fmt.Errorf("%q is no rate: give 500k, 10m, at least 1k", text)
	}
	*r = rate(n / units.KB)
	return nil
}

// count is a flag's value: how many there may be.
type count struct{ n, max int }

// String implements pflag.Value.
func (c *count) String() string {
	if c.n == 0 {
		return ""
	}
	return strconv.Itoa(c.n)
}

// Type implements pflag.Value.
func (c *count) Type() string { return "N" }

// Set implements pflag.Value.
func (c *count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > c.max {
		return fmt.Errorf("%q is not a number from 1 to %d", text, c.max)
	}
	c.n = n
	return nil
}

// readFile reads a policy.
func readFile(name string) (api.NetworkPolicy, error) {
	f, err := os.Open(name)
	if err != nil {
		return api.NetworkPolicy{}, errdefs.Invalid.Errorf("policy: %w", err)
	}
	defer func() { _ = f.Close() }()
	p, err := Parse(f)
	if err != nil {
		return p, errdefs.Invalid.Errorf("policy %s: %w", name, err)
	}
	return p, nil
}
