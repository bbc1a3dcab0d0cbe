; run: insert-gates{kind=moe,experts=3,active=1,gain=0,samples=synthetic}
; run: insert-gates{kind=moe,experts=4,active=1,gain=0,samples=synthetic}
; run: insert-gates{kind=moe,experts=2,active=1,samples=synthetic}
; expect: ops gate == 0
; expect: remark gate-skipped 16 hidden units cannot be divided among 3 experts
; expect: remark gate-skipped 4 hidden units of an expert are fewer than 8
; expect: remark gate-skipped is predicted, below 1.1
planish-ir 1
graph @"main"(v0 "x": f32[6,4]) {
  v1 = const f32[4,16] [-0.937, -0.491, -0.515, -0.584, -0.537, 0.739, -0.717, -0.897, 0.856, 0.131, 0.981, -0.194, 0.802, 0.308, 0.582, 0.489, -0.011, -0.814, -0.578, 0.748, 0.800, 0.849, -0.327, 0.314, 0.599, 0.285, 0.630, 0.056, 0.309, 0.372, -0.463, 0.846, 0.913, -0.851, 0.942, 0.924, 0.337, -0.911, 0.798, -0.745, 0.937, 0.334, -0.879, -0.665, 0.270, 0.138, 0.493, 0.855, -0.563, -0.993, 0.845, -0.974, 0.753, -0.768, 0.620, 0.566, 0.756, 0.101, 0.757, -0.597, 0.343, -0.339, 0.784, 0.547]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[6,16] @"up"
  v3 = const f32[16] [-0.057, 0.053, -0.947, -0.932, 0.189, -0.022, 0.729, 0.216, -0.722, -0.275, 0.535, 0.046, -0.979, 0.675, 0.655, -0.830]
  v4 = binary{kind=add} v2, v3 : f32[6,16] @"bias"
  v5 = unary{kind=relu} v4 : f32[6,16] @"act"
  v6 = const f32[16,3] [0.087, -0.238, 0.575, -0.378, -0.533, -0.027, 0.933, -0.810, -0.771, 0.242, 0.771, 0.025, -0.132, 0.716, 0.553, -0.866, 0.763, -0.608, -0.395, 0.673, -0.155, 0.597, -0.665, 0.749, -0.647, -0.701, -0.011, -0.323, 0.084, 0.808, 0.421, -0.989, -0.376, 0.090, -0.027, 0.431, -0.032, -0.849, -0.509, 0.695, -0.286, 0.533, 0.972, 0.253, 0.353, 0.219, -0.373, 0.826]
  v7 = matmul{trans_a=false, trans_b=false} v5, v6 : f32[6,3] @"down"
  return v7 "y"
}
