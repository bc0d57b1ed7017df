package api

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

func TestParseRule(t *testing.T) {
	tests := []struct {
		text string
		want NetworkRule
	}{
		{"pypi.org", NetworkRule{Host: "pypi.org"}},
		{"pypi.org:443", NetworkRule{Host: "pypi.org", Ports: []string{"443"}}},
		{"*.example.com:443,8000-8100/udp", NetworkRule{Host: "*.example.com", Ports: []string{"443", "8000-8100"}, Proto: "udp"}},
		{"*:25", NetworkRule{Host: "*", Ports: []string{"25"}}},
		{"bücher.example", NetworkRule{Host: "bücher.example"}},
		{"a.example/tcp", NetworkRule{Host: "a.example", Proto: "tcp"}},
		{"10.0.0.0/8", NetworkRule{CIDR: "10.0.0.0/8"}},
		{"10.0.0.0/8:5432", NetworkRule{CIDR: "10.0.0.0/8", Ports: []string{"5432"}}},
		{"10.0.0.5:53/udp", NetworkRule{CIDR: "10.0.0.5", Ports: []string{"53"}, Proto: "udp"}},
		{"10.0.0.0/8:53/udp", NetworkRule{CIDR: "10.0.0.0/8", Ports: []string{"53"}, Proto: "udp"}},
		{"2001:db8::/32", NetworkRule{CIDR: "2001:db8::/32"}},
		{"2001:db8::1/udp", NetworkRule{CIDR: "2001:db8::1", Proto: "udp"}},
		{"[2001:db8::/32]:443", NetworkRule{CIDR: "2001:db8::/32", Ports: []string{"443"}}},
		{"[2001:db8::1]", NetworkRule{CIDR: "2001:db8::1"}},
		{"a.example=GET", NetworkRule{Host: "a.example", Methods: []string{"GET"}}},
		{"a.example=GET:/repos/**", NetworkRule{Host: "a.example", Methods: []string{"GET"}, Paths: []string{"/repos/**"}}},
		{"*.a.example:8443/tcp=GET,HEAD:/a,/b/*", NetworkRule{Host: "*.a.example", Ports: []string{"8443"}, Proto: "tcp", Methods: []string{"GET", "HEAD"}, Paths: []string{"/a", "/b/*"}}},
		{"a.example=*:/udp", NetworkRule{Host: "a.example", Paths: []string{"/udp"}}},
		{`*=M-SEARCH:/{a,b}/[a-z]x,/c\,d=e:f`, NetworkRule{Host: "*", Methods: []string{"M-SEARCH"}, Paths: []string{"/{a,b}/[a-z]x", `/c\,d=e:f`}}},
		{"a.example=opaque", NetworkRule{Host: "a.example", Opaque: true}},
		{"a.example:443=opaque", NetworkRule{Host: "a.example", Ports: []string{"443"}, Opaque: true}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			tt.want.Action = RuleAllow
			got, err := ParseRule(RuleAllow, tt.text)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("%+v (%v), want %+v", got, err, tt.want)
			}
			again, err := ParseRule(RuleAllow, strings.TrimPrefix(got.String(), "allow "))
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("its text %q gives %+v (%v)", got, again, err)
			}
		})
	}
}

func TestParseRuleRefuses(t *testing.T) {
	for _, text := range []string{
		"", ":443", "a.example:", "a.example:0", "a.example:65536", "a.example:+80", "a.example:080", "a.example:9-8", "a.example:1-2-3", "a.example:80,",
		"a.example:http", "http://a.example", "a.example/path", "a b", "a@b", "*example.com", "a.*.com", "**", "*.", ".a", "a..b", "a.example/sctp",
		"10.0.0.0/33", "10.0.0.1/8", "010.0.0.1/8", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "[2001:db8::1", "[2001:db8::1]443", "[]", "2000::/3:443",
		"a.example:" + strings.Repeat("1,", 64) + "1", strings.Repeat("a", 1025),
		"a.example=", "a.example=*", "a.example=get", "a.example=GET:", "a.example=:/x", "a.example=GET,", "a.example=*,GET", "a.example=CONNECT", "a.example=GET,TRACE", "a.example=GET POST",
		"a.example=OPAQUE:x", "a.example=opaque:/x", "a.example=GET=/x", "a.example=/x", "a.example=GET/tcp", "a.example/udp=GET", "10.0.0.0/8=GET", "1.1.1.1=opaque",
		"a.example=" + strings.Repeat("A,", 16) + "A", "a.example=" + strings.Repeat("A", 33), "a.example=*:" + strings.Repeat("/,", 32) + "/",
		"a.example=*:x", "a.example=*:/a,b", "a.example=*:/a,", "a.example=*:/{a", "a.example=*:/a}", "a.example=*:/{a,{b}}", "a.example=*:/[]", "a.example=*:/[!a]", "a.example=*:/[^a]",
		"a.example=*:/[+-9]", "a.example=*:/[a", "a.example=*:/[a/b]", "a.example=*:/[z-a]", "a.example=*:/[A-z]", `a.example=*:/\`, `a.example=*:\/`, `a.example=*:/a\/b`, "a.example=*:/a//b",
		"a.example=*:/./a", "a.example=*:/a/..", "a.example=*:/{a,.}./b", "a.example=*:/a**", "a.example=*:/**a", "a.example=*:/{*,a}*", "a.example=*:/***", "a.example=*:/a%20b", "a.example=*:/%{2,4}1",
		"a.example=*:/a\n", "a.example=*:/\xff", "a.example=*:/" + strings.Repeat("a", 256), "a.example=*:/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}",
	} {
		if r, err := ParseRule(RuleAllow, text); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%q: %+v (%v)", text, r, err)
		}
	}
}

func TestNetworkPolicyValidate(t *testing.T) {
	rule := NetworkRule{Action: RuleAllow, Host: "a.example"}
	wide := NetworkRule{Action: RuleAllow, Host: "a.example", Ports: slices.Repeat([]string{"10000-20000"}, maxPortsPerRule)}
	many := make([]NetworkRule, MaxNetworkRules+1)
	for i := range many {
		many[i] = rule
	}
	tests := []struct {
		name   string
		policy NetworkPolicy
		says   string // "" when it is fine
	}{
		{"zero", NetworkPolicy{}, ""},
		{"none", NetworkPolicy{Mode: NetNone}, ""},
		{"all that there is", NetworkPolicy{Mode: NetAllow, Rules: many[1:], DNS: []string{"127.0.0.53", "[2001:db8::1]:5353"}, RateKBps: MaxRateKBps, MaxConns: 1, MaxNewPerSec: 1, MaxDNSPerSec: 1}, ""},
		{"rules without a mode", NetworkPolicy{Rules: many[:1]}, "without a mode"},
		{"rules for none", NetworkPolicy{Mode: NetNone, Rules: many[:1]}, "takes no rules"},
		{"a mode that is none", NetworkPolicy{Mode: "closed"}, `"closed"`},
		{"too many", NetworkPolicy{Mode: NetAllow, Rules: many}, "more than"},
		{"long", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: strings.Repeat("a", 1000)}, wide}}, ""},
		{"far too long", NetworkPolicy{Mode: NetAllow, Rules: slices.Repeat([]NetworkRule{wide}, MaxNetworkRules)}, "bytes"},
		{"no target", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{rule, {Action: RuleAllow}}}, "rule 2: give either"},
		{"two targets", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", CIDR: "10.0.0.0/8"}}}, "give either"},
		{"no action", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Host: "a"}}}, "action"},
		{"a denial of methods", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleDeny, Host: "a", Methods: []string{"GET"}}}}, "only an allow rule"},
		{"a bound of a range", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, CIDR: "10.0.0.0/8", MaxResponseKB: 1}}}, "only a rule by host"},
		{"bounds of responses", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", MaxResponseKB: MaxResponseKB, ResponseKBps: MaxRateKBps}}}, ""},
		{"too high a bound", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", MaxResponseKB: MaxResponseKB + 1}}}, "max_response_kb"},
		{"a negative bound", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", ResponseKBps: -1}}}, "response_kbps"},
		{"opaque with methods", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", Opaque: true, Methods: []string{"GET"}}}}, "opaque shows no requests"},
		{"opaque UDP", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", Opaque: true, Proto: "udp"}}}, "only TCP"},
		{"a star among methods", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleAllow, Host: "a", Methods: []string{"*"}}}}, "star"},
		{"another protocol", NetworkPolicy{Mode: NetAllow, Rules: []NetworkRule{{Action: RuleDeny, Host: "a", Proto: "icmp"}}}, "icmp"},
		{"a resolver by name", NetworkPolicy{DNS: []string{"dns.example"}}, "resolver"},
		{"a resolver that is nobody", NetworkPolicy{DNS: []string{"0.0.0.0"}}, "resolver"},
		{"a resolver without port", NetworkPolicy{DNS: []string{"192.0.2.1:0"}}, "resolver"},
		{"too many resolvers", NetworkPolicy{DNS: make([]string, MaxResolvers+1)}, "resolvers"},
		{"a negative limit", NetworkPolicy{MaxConns: -1}, "max_conns"},
		{"too high a limit", NetworkPolicy{RateKBps: MaxRateKBps + 1}, "rate_kbps"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.policy.Validate()
			if (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || !errdefs.Is(err, errdefs.Invalid)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
			c := Config{ID: "x", Network: tt.policy}.WithDefaults()
			if cerr := c.Validate(); (cerr == nil) != (err == nil) {
				t.Errorf("the configuration says %v", cerr)
			}
		})
	}
	if got := (Config{}).WithDefaults().Network.Mode; got != NetOpen {
		t.Errorf("the default mode is %q", got)
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{
		"a.example:443/udp", "10.0.0.0/8:1-2", "[2001:db8::/32]:443", "*", "*.a", "[", "]:", "::", "a=GET,HEAD:/a/**,/{b,c}", "a:1/tcp=opaque", `a=*:/\,,/[a-z]`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(RuleAllow, text)
		if err != nil {
			return
		}
		again, err := ParseRule(RuleAllow, strings.TrimPrefix(r.String(), "allow "))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%q is %+v, its text %q gives %+v (%v)", text, r, r, again, err)
		}
	})
}
