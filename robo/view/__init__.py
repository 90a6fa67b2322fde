"""Pictures of rollouts: rerun recordings and their viewer, videos, pictures, reports."""
