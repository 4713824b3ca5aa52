// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keyhole-dev/keyhole/internal/redact"
)

// Validate says what is wrong with a request by itself, before anybody looks at the target: one sentence that names the
// flag. A Spec that it accepts has every text bounded and printable, every path, condition and action well-formed, every
// limit within the maxima. Zero limits are valid; they stand for the defaults.
func (s *Spec) Validate() error {
	if err := s.Target.Validate(); err != nil {
		return err
	}
	if s.Function == "" {
		return errors.New("FUNCTION: missing; name the function to probe, such as main.(*Cart).Checkout")
	}
	if err := validText("FUNCTION", s.Function, MaxFunctionBytes); err != nil {
		return err
	}
	if err := s.validateArguments(); err != nil {
		return err
	}
	if _, err := ParseWhere(s.Where); err != nil {
		return err
	}
	if s.SlowerThan < 0 || s.SlowerThan > MaxTTL {
		return fmt.Errorf("--slower-than %v: want at most %v", s.SlowerThan, MaxTTL)
	}
	if s.Errors != "" && s.Errors != ErrorsOnly && s.Errors != NonzeroOnly {
		return fmt.Errorf("--errors-only=%.32q: want %s or %s", s.Errors, ErrorsOnly, NonzeroOnly)
	}
	if s.Stack && s.Target.Kind == SelectKernel {
		return errors.New("--stack: the stacks of the kernel are not read; those of a process are")
	}
	if err := s.validateRedact(); err != nil {
		return err
	}
	if err := s.Limits.Validate(); err != nil {
		return err
	}
	if s.Limits.Duty != 0 && s.Returns() {
		return errors.New("--duty: a call that begins in one second and returns in another would be paired with the wrong one: leave --ret, " +
			"--slower-than and --errors-only out")
	}
	if err := s.validateAggregate(); err != nil {
		return err
	}
	if strings.TrimSpace(s.Reason) == "" {
		return errors.New("--reason: missing; say why, it goes on record")
	}
	if n := utf8.RuneCountInString(s.Reason); n > MaxReasonBytes {
		return fmt.Errorf("--reason: %d characters; at most %d", n, MaxReasonBytes)
	}
	return validText("--reason", s.Reason, MaxReasonBytes*utf8.UTFMax)
}

// Validate says what is wrong with a selector by itself.
func (s *Selector) Validate() error {
	switch s.Kind {
	case SelectPID:
		if s.PID <= 0 || s.PID > maxPID {
			return fmt.Errorf("TARGET pid/%d: not a process number", s.PID)
		}
		if s.Path != "" {
			return errors.New("TARGET: names a process number and a path; give one of them")
		}
	case SelectExe:
		if err := validText("TARGET exe", s.Path, maxExePath); err != nil {
			return err
		}
		if !path.IsAbs(s.Path) || path.Clean(s.Path) != s.Path || s.Path == "/" {
			return fmt.Errorf("TARGET exe/%s: want the absolute path of an executable, and no . or .. in it", s.Path)
		}
		if s.PID != 0 {
			return errors.New("TARGET: names a process number and a path; give one of them")
		}
	case SelectKernel:
		if s.PID != 0 || s.Path != "" {
			return errors.New("TARGET: names the kernel and a process; give one of them")
		}
	case "":
		return errors.New("TARGET: missing; give pid/N, exe/PATH or kernel")
	default:
		return fmt.Errorf("TARGET: unknown kind %.32q; give pid/N, exe/PATH or kernel", s.Kind)
	}
	if s.Node == "" {
		return nil
	}
	if len(s.Node) > maxNode || strings.ContainsFunc(s.Node, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r)
	}) {
		return fmt.Errorf("--node %.32q: want letters, digits, '.', '-' and '_', at most %d", s.Node, maxNode)
	}
	return nil
}

const (
	maxPID     = 1 << 22 // PID_MAX_LIMIT on 64-bit Linux
	maxExePath = 4096    // PATH_MAX
	maxNode    = 253     // a DNS name
)

// Validate says what is wrong with the limits. Zero ones are valid.
func (l *Limits) Validate() error {
	switch {
	case l.TTL < 0 || l.TTL > 0 && l.TTL < time.Second:
		return fmt.Errorf("--for %v: at least 1s", l.TTL)
	case l.TTL > MaxTTL:
		return fmt.Errorf("--for %v: at most %v", l.TTL, MaxTTL)
	case l.Rate > MaxRate:
		return fmt.Errorf("--rate %d/s: at most %d/s", l.Rate, MaxRate)
	case l.MaxBytes > MaxBytes:
		return fmt.Errorf("limit of %d bytes: at most %d", l.MaxBytes, MaxBytes)
	case l.ValueBytes > MaxValueBytes:
		return fmt.Errorf("limit of %d bytes a value: at most %d", l.ValueBytes, MaxValueBytes)
	case l.Duty.validate() != nil:
		return l.Duty.validate()
	case l.Budget > MaxBudget:
		return fmt.Errorf("--budget %v: at most %v", l.Budget, Budget(MaxBudget))
	}
	return nil
}

func (s *Spec) validateArguments() error {
	return errors.Join(validatePaths("--arg", s.Arguments), validatePaths("--ret", s.Results))
}

func validatePaths(flag string, paths []string) error {
	if len(paths) > MaxArguments {
		return fmt.Errorf("%s: %d paths; at most %d", flag, len(paths), MaxArguments)
	}
	seen := make(map[string]bool, len(paths))
	for _, a := range paths {
		if _, err := ParsePath(a); err != nil {
			return fmt.Errorf("%s %w", flag, err)
		}
		if seen[a] {
			return fmt.Errorf("%s %s: given twice", flag, a)
		}
		seen[a] = true
	}
	return nil
}

func (s *Spec) validateAggregate() error {
	flag := "--count"
	switch s.Aggregate {
	case AggregateNone:
		return nil
	case AggregateCount:
		if len(s.Arguments) > 0 {
			return errors.New("--count: it captures no --arg; --count by PATH counts by a value")
		}
	case AggregateGroups:
		if len(s.Arguments) != 1 {
			return fmt.Errorf("--count by: %d paths; give one, and no --arg", len(s.Arguments))
		}
	case AggregateHistogram:
		if flag = "--hist"; len(s.Arguments) != 1 {
			return fmt.Errorf("--hist: %d paths; give one, and no --arg", len(s.Arguments))
		}
	case AggregateDurations:
		if flag = "--hist duration"; len(s.Arguments)+len(s.Results) > 0 {
			return errors.New("--hist duration: no event leaves: leave --arg and --ret out")
		}
	default:
		return fmt.Errorf("unknown aggregate %.32q", s.Aggregate)
	}
	if s.Returns() && s.Aggregate != AggregateDurations {
		return fmt.Errorf("%s: calls are counted where they begin: leave --ret, --slower-than and --errors-only out", flag)
	}
	if s.Stack {
		return fmt.Errorf("%s: no event leaves that could have a --stack", flag)
	}
	if s.Limits.MaxHits > 0 {
		return fmt.Errorf("%s: no event leaves that --max-hits could count", flag)
	}
	return nil
}

func (s *Spec) validateRedact() error {
	if len(s.Redact) > MaxArguments {
		return fmt.Errorf("--redact: %d entries; at most %d", len(s.Redact), MaxArguments)
	}
	for _, r := range s.Redact {
		if _, err := ParsePath(r.Path); err != nil {
			return fmt.Errorf("--redact %w", err)
		}
		if _, err := redact.ParseAction(r.Action); err != nil {
			return fmt.Errorf("--redact %s=%.64s: %w", r.Path, r.Action, err)
		}
	}
	return nil
}

// validText refuses what would be unreadable, or more than that, where people see it: control characters can rewrite a
// terminal.
func validText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s: %d bytes; at most %d", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s: not valid UTF-8", what)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return fmt.Errorf("%s: has the unprintable character %q", what, []rune(s[i:])[0])
	}
	return nil
}
