// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/dfa"
)

// Machines are the tables that the plan's values are searched with, laid out, and for each of its sets which of them are its, by
// their bits.
func (p *Plan) Machines() (*dfa.Image, []uint32, error) {
	machines, err := p.machines()
	if err != nil {
		return nil, nil, err
	}
	var all []*dfa.Machine
	wanted := make([]uint32, len(machines))
	for i, of := range machines {
		for _, m := range of {
			at := slices.Index(all, m)
			if at < 0 {
				at = len(all)
				all = append(all, m)
			}
			wanted[i] |= 1 << at
		}
	}
	image, err := dfa.NewImage(all)
	return image, wanted, err
}

// machines are those of each of the plan's sets.
func (p *Plan) machines() ([][]*dfa.Machine, error) {
	library, err := detect.NewLibrary(p.Patterns)
	if err != nil {
		return nil, err
	}
	var all [][]*dfa.Machine
	for _, list := range p.Sets {
		machines, err := library.Machines(list)
		if err != nil {
			return nil, err
		}
		all = append(all, machines)
	}
	return all, nil
}

// verifySets says whether each list of sets is one that there is, and is searched for, and nothing else is defined.
func (p *Plan) verifySets() error {
	if len(p.Sets) > maxSets {
		return fmt.Errorf("%d lists of sets; the most is %d", len(p.Sets), maxSets)
	}
	for i, list := range p.Sets {
		if canonical, err := detect.Parse(list); err != nil || canonical != list || slices.Contains(p.Sets[:i], list) {
			return fmt.Errorf("list of sets %.64q: unknown, not in order, or there twice", list)
		}
		if !slices.ContainsFunc(p.Ops, func(op Op) bool { return op.searches() && int(op.Aux) == i }) {
			return fmt.Errorf("no op searches for %s", list)
		}
	}
	for _, pattern := range p.Patterns {
		if !slices.ContainsFunc(p.Sets, func(list string) bool { return slices.Contains(detect.Own(list), pattern.Name) }) {
			return fmt.Errorf("the set %.64s is defined and searched for nowhere", pattern.Name)
		}
	}
	return p.definesSets()
}

// definesSets says whether every set of the plan is built in or defined.
func (p *Plan) definesSets() error {
	library, err := detect.NewLibrary(p.Patterns)
	if err != nil {
		return err
	}
	for _, list := range p.Sets {
		if err := library.Known(list); err != nil {
			return err
		}
	}
	return nil
}
