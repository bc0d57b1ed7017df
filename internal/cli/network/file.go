package network

import (
	"errors"
	"io"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/document"
)

// maxFile bounds a policy's file.
const maxFile = 1 << 20

// Parse reads a policy from YAML, of which JSON is a part. docs/policy.schema.json describes it. What it does not know is
// refused: a rule that is overlooked would be worse.
func Parse(r io.Reader) (api.NetworkPolicy, error) {
	var p api.NetworkPolicy
	b, err := document.Read(r, maxFile)
	if err != nil {
		return p, err
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return p, errors.New(yaml.FormatError(err, false, true))
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return p, errdefs.Invalid.Errorf("it is not one document with a policy")
	}
	var odd oddities
	ast.Walk(&odd, file.Docs[0].Body)
	switch {
	case odd.references:
		return p, errdefs.Invalid.Errorf("anchors and aliases are not taken")
	case odd.number != "":
		return p, errdefs.Invalid.Errorf("%s is no plain decimal number", odd.number)
	}
	if err := yaml.NodeToValue(file.Docs[0].Body, &p, yaml.Strict()); err != nil {
		return p, errors.New(yaml.FormatError(err, false, true))
	}
	if p.Mode == "" {
		return p, errdefs.Invalid.Errorf("it names no mode").WithRemedy("mode: allow (only what rules allow), open (the public internet too) or none")
	}
	return p, p.Validate()
}

// oddities are what YAML has and a policy has not.
type oddities struct {
	references bool   // with which a short file can become a huge policy
	number     string // one that somebody else may read as another
}

// Visit implements ast.Visitor.
func (o *oddities) Visit(n ast.Node) ast.Visitor {
	switch n.Type() {
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType:
		o.references = true
	case ast.IntegerType:
		text := n.GetToken().Value
		if i, err := strconv.Atoi(text); err != nil || strconv.Itoa(i) != text {
			o.number = text
		}
	default:
	}
	return o
}

// Format writes a policy as Parse reads it.
func Format(p api.NetworkPolicy) ([]byte, error) {
	b, err := yaml.MarshalWithOptions(p, yaml.IndentSequence(true))
	if err != nil {
		return nil, errdefs.Internal.Errorf("print the policy: %w", err)
	}
	return b, nil
}
