//go:build !purego

package kernels

import "golang.org/x/sys/cpu"

var functions32, functions64 = chooseFunctions()

func chooseFunctions() (functions[float32], functions[float64]) {
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		return inGo[float32](), inGo[float64]()
	}
	return functions[float32]{
			exp: exp32AVX2, log: log32AVX2, log1p: log1p32AVX2, tanh: tanh32AVX2, sigmoid: sigmoid32AVX2,
			softplus: softplus32AVX2, rectify: rectify32AVX2, tanhChain: tanhChain32AVX2,
			sigmoidChain: sigmoidChain32AVX2, softplusChain: softplusChain32AVX2, rectifyChain: rectifyChain32AVX2,
			add: add32AVX2, sub: sub32AVX2, mul: mul32AVX2, mulAdd: mulAdd32AVX2, axpy: axpy32AVX2, scale: scale32AVX2,
			addScalar: addScalar32AVX2, dot: dot32AVX2, sum: sum32AVX2,
		}, functions[float64]{
			exp: exp64AVX2, log: log64AVX2, log1p: log1p64AVX2, tanh: tanh64AVX2, sigmoid: sigmoid64AVX2,
			softplus: softplus64AVX2, rectify: rectify64AVX2, tanhChain: tanhChain64AVX2,
			sigmoidChain: sigmoidChain64AVX2, softplusChain: softplusChain64AVX2, rectifyChain: rectifyChain64AVX2,
			add: add64AVX2, sub: sub64AVX2, mul: mul64AVX2, mulAdd: mulAdd64AVX2, axpy: axpy64AVX2, scale: scale64AVX2,
			addScalar: addScalar64AVX2, dot: dot64AVX2, sum: sum64AVX2,
		}
}
