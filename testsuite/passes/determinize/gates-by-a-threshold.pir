; run: determinize{threshold=0.3}
; expect: metric gates-determinized == 2
; expect: ops stochastic-gate == 0
; expect: ops random == 0
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "seed": i64[]) {
  v2 = const i64[2] [2, 3]
  v3 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=0} v2, v1 : f32[2,3]
  v4 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v2 : f32[2,3]
  v5 = stochastic-gate{kind=binary, estimator=reinforce, sd=1.0} v0, v3 : f32[2,3]
  v6 = stochastic-gate{kind=smooth, estimator=derivative, sd=1.0} v5, v4 : f32[2,3]
  return v6 "y"
}
